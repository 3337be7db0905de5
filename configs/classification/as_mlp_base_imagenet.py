# AS-MLP base on ImageNet.
_base_ = '../_base_/recipes/as_mlp.py'
model = dict(backbone=dict(arch='base', drop_path_rate=0.5))
