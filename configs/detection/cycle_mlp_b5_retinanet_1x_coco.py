# RetinaNet with CycleMLP b5, 1x.
_base_ = './cycle_mlp_b1_retinanet_1x_coco.py'
model = dict(backbone=dict(arch='b5'), neck=dict(in_channels=[192, 384, 768]))
