# AS-MLP tiny on ImageNet.
_base_ = '../_base_/recipes/as_mlp.py'
model = dict(backbone=dict(arch='tiny', drop_path_rate=0.2))
