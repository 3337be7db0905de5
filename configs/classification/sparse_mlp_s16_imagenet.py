# Sparse-MLP s16 on ImageNet.
_base_ = '../_base_/recipes/sparse_mlp.py'
model = dict(backbone=dict(arch='s16'))
