# RetinaNet with CycleMLP b2, 1x.
_base_ = './cycle_mlp_b1_retinanet_1x_coco.py'
model = dict(backbone=dict(arch='b2'))
