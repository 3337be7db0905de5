# Cascade Mask R-CNN with Hire-MLP small, 3x: Swin's recipe (unconfirmed); no detection
# code was published. SyncBN, since two images per GPU are too few for BatchNorm.
_base_ = [
    '../_base_/models/cascade_mask_rcnn.py',
    '../_base_/datasets/coco_instance_multiscale.py',
    '../_base_/schedules/detection_3x.py',
    '../_base_/runtime_detection.py',
]
model = dict(
    backbone=dict(type='mlp_dense.HireMLP', arch='small', drop_path_rate=0.1, norm_cfg=dict(type='SyncBN')),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))))
