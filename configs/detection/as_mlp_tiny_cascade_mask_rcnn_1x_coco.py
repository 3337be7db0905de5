# Cascade Mask R-CNN with AS-MLP tiny, 1x, multi-scale training.
_base_ = [
    '../_base_/models/cascade_mask_rcnn.py',
    '../_base_/datasets/coco_instance_multiscale.py',
    '../_base_/schedules/detection_1x.py',
    '../_base_/runtime_detection.py',
]
model = dict(
    backbone=dict(type='mlp_dense.ASMLP', arch='tiny', drop_path_rate=0.1),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))))
