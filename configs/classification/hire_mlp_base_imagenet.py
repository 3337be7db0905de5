# Hire-MLP base on ImageNet.
_base_ = '../_base_/recipes/hire_mlp.py'
model = dict(backbone=dict(arch='base', drop_path_rate=0.2))
