# Mask R-CNN with ViP m7, 1x.
_base_ = './vip_s7_mask_rcnn_1x_coco.py'
model = dict(
    backbone=dict(arch='m7', drop_path_rate=0.2),
    neck=dict(in_channels=[256, 256, 512, 512]),
)
