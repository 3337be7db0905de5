# Mask R-CNN with Wave-MLP s, 1x.
_base_ = './wave_mlp_t_mask_rcnn_1x_coco.py'
model = dict(backbone=dict(arch='s'))
