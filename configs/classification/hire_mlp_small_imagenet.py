# Hire-MLP small on ImageNet. Its stochastic depth is not public; this is between its neighbours.
_base_ = '../_base_/recipes/hire_mlp.py'
model = dict(backbone=dict(arch='small', drop_path_rate=0.1))
