# CycleMLP b1 on ImageNet.
_base_ = '../_base_/recipes/cycle_mlp.py'
model = dict(backbone=dict(arch='b1'))
