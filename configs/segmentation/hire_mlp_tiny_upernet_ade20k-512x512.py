# UperNet with Hire-MLP tiny: the recipe published for small, and the drop path rate of its detectors.
_base_ = './hire_mlp_small_upernet_ade20k-512x512.py'
model = dict(backbone=dict(arch='tiny', drop_path_rate=0.1))
