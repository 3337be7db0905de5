# The default of Hire-MLP.
_base_ = './hire_mlp_small_mask_rcnn_1x_coco.py'
