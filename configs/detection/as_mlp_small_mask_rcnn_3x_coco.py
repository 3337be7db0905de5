# Mask R-CNN with AS-MLP small, 3x.
_base_ = './as_mlp_tiny_mask_rcnn_3x_coco.py'
model = dict(backbone=dict(arch='small'))
