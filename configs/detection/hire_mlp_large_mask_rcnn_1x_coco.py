# Mask R-CNN with Hire-MLP large, 1x.
_base_ = './hire_mlp_small_mask_rcnn_1x_coco.py'
model = dict(backbone=dict(arch='large', drop_path_rate=0.3), neck=dict(in_channels=[96, 192, 384, 768]))
