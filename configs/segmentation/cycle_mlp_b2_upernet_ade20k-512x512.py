# UperNet with CycleMLP b2.
_base_ = './cycle_mlp_b1_upernet_ade20k-512x512.py'
model = dict(backbone=dict(arch='b2'))
