# Cascade Mask R-CNN with AS-MLP small, 1x. The published config of this name is a copy of that
# of tiny; this one is small.
_base_ = './as_mlp_tiny_cascade_mask_rcnn_1x_coco.py'
model = dict(backbone=dict(arch='small', drop_path_rate=0.2))
