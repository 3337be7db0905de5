# ViP s7 on ImageNet.
_base_ = '../_base_/recipes/vip.py'
model = dict(backbone=dict(arch='s7'))
