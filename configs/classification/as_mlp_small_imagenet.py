# AS-MLP small on ImageNet.
_base_ = '../_base_/recipes/as_mlp.py'
model = dict(backbone=dict(arch='small', drop_path_rate=0.3))
