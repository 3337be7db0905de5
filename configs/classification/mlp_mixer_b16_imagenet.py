# MLP-Mixer b16 on ImageNet.
_base_ = '../_base_/recipes/mlp_mixer.py'
model = dict(backbone=dict(arch='b16'))
