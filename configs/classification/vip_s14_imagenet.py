# ViP s14 on ImageNet. Its recipe is not public; this is s7's.
_base_ = '../_base_/recipes/vip.py'
model = dict(backbone=dict(arch='s14'))
