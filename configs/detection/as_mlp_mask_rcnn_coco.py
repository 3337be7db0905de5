# The default of AS-MLP.
_base_ = './as_mlp_tiny_mask_rcnn_1x_coco.py'
