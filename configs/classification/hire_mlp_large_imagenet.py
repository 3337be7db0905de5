# Hire-MLP large on ImageNet. Its stochastic depth is not public.
_base_ = '../_base_/recipes/hire_mlp.py'
model = dict(backbone=dict(arch='large', drop_path_rate=0.3))
