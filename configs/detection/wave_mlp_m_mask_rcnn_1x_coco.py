# Mask R-CNN with Wave-MLP m, 1x.
_base_ = './wave_mlp_t_mask_rcnn_1x_coco.py'
model = dict(backbone=dict(arch='m', drop_path_rate=0.2))
