# UperNet with Wave-MLP m: the recipe of t, and the drop path rate of Hire-MLP of like size.
_base_ = './wave_mlp_t_upernet_ade20k-512x512.py'
model = dict(backbone=dict(arch='m', drop_path_rate=0.2))
