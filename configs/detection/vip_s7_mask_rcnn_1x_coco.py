# Mask R-CNN with ViP s7, 1x: Swin's recipe, as for the other families; nothing was published.
_base_ = [
    '../_base_/models/mask_rcnn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/detection_1x.py',
    '../_base_/runtime_detection.py',
]
model = dict(
    backbone=dict(type='mlp_dense.VisionPermutator', arch='s7', drop_path_rate=0.1),
    neck=dict(in_channels=[192, 384, 384, 384]),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))))
