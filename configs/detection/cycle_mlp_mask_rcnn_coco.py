# The default of CycleMLP.
_base_ = './cycle_mlp_b2_mask_rcnn_1x_coco.py'
