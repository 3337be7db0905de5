# MLP-Mixer l16 on ImageNet. The recipe is b16's.
_base_ = '../_base_/recipes/mlp_mixer.py'
model = dict(backbone=dict(arch='l16'))
