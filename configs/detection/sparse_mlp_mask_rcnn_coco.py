# The default of Sparse-MLP.
_base_ = './sparse_mlp_s16_mask_rcnn_1x_coco.py'
