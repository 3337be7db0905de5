# RetinaNet with Wave-MLP t_dw, 1x.
_base_ = './wave_mlp_t_retinanet_1x_coco.py'
model = dict(backbone=dict(arch='t_dw'))
