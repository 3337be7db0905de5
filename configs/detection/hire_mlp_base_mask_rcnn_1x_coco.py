# Mask R-CNN with Hire-MLP base, 1x.
_base_ = './hire_mlp_small_mask_rcnn_1x_coco.py'
model = dict(backbone=dict(arch='base', drop_path_rate=0.2))
