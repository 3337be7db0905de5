# Wave-MLP s on ImageNet.
_base_ = '../_base_/recipes/wave_mlp.py'
model = dict(backbone=dict(arch='s'))
