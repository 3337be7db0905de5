# Cascade Mask R-CNN with AS-MLP base, 3x.
_base_ = './as_mlp_tiny_cascade_mask_rcnn_3x_coco.py'
model = dict(backbone=dict(arch='base', drop_path_rate=0.3), neck=dict(in_channels=[128, 256, 512, 1024]))
