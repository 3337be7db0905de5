# UperNet with Wave-MLP t_dw: the recipe of t, and the drop path rate of Hire-MLP of like size.
_base_ = './wave_mlp_t_upernet_ade20k-512x512.py'
model = dict(backbone=dict(arch='t_dw'))
