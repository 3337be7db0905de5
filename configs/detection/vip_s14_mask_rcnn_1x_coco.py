# Mask R-CNN with ViP s14, 1x.
_base_ = './vip_s7_mask_rcnn_1x_coco.py'
model = dict(
    backbone=dict(arch='s14'),
    neck=dict(in_channels=[384] * 4),
)
