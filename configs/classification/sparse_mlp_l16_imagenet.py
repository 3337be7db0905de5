# Sparse-MLP l16 on ImageNet.
_base_ = '../_base_/recipes/sparse_mlp.py'
model = dict(backbone=dict(arch='l16'))
