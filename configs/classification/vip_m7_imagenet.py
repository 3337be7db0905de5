# ViP m7 on ImageNet. Its stochastic depth is not public.
_base_ = '../_base_/recipes/vip.py'
model = dict(backbone=dict(arch='m7', drop_path_rate=0.2))
