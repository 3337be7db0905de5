# Mask R-CNN with Sparse-MLP s16, 1x: Swin's recipe, as for the other families; nothing was published.
_base_ = [
    '../_base_/models/mask_rcnn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/detection_1x.py',
    '../_base_/runtime_detection.py',
]
model = dict(
    backbone=dict(type='mlp_dense.SparseMLP', arch='s16', drop_path_rate=0.1),
    neck=dict(in_channels=[512] * 4),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))))
