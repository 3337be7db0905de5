# The default of Wave-MLP.
_base_ = './wave_mlp_t_mask_rcnn_1x_coco.py'
