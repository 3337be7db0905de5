# Cascade Mask R-CNN with Hire-MLP base, 3x.
_base_ = './hire_mlp_small_cascade_mask_rcnn_3x_coco.py'
model = dict(backbone=dict(arch='base', drop_path_rate=0.2))
