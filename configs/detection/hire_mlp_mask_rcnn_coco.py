# Mask R-CNN with Hire-MLP small, 1x. No detection code was published; the recipe is Swin's, as the paper says.
# ImageNet weights: see the README.
_base_ = [
    '../_base_/models/mask_rcnn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/detection_1x.py',
    '../_base_/runtime_detection.py',
]
model = dict(
    # SyncBN: the batch of one GPU is too small for BatchNorm.
    backbone=dict(type='mlp_dense.HireMLP', arch='small', drop_path_rate=0.1, norm_cfg=dict(type='SyncBN')),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05), paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0)))
)
