# Mask R-CNN with Wave-MLP t, 1x: Hire-MLP's recipe, which is Swin's (unconfirmed); no detection code was
# published. SyncBN, since two images per GPU are too few for BatchNorm.
_base_ = [
    '../_base_/models/mask_rcnn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/detection_1x.py',
    '../_base_/runtime_detection.py',
]
model = dict(
    backbone=dict(type='mlp_dense.WaveMLP', arch='t', drop_path_rate=0.1, norm_cfg=dict(type='SyncBN')),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))))
