# Cascade Mask R-CNN with Hire-MLP large, 3x.
_base_ = './hire_mlp_small_cascade_mask_rcnn_3x_coco.py'
model = dict(backbone=dict(arch='large', drop_path_rate=0.3), neck=dict(in_channels=[96, 192, 384, 768]))
