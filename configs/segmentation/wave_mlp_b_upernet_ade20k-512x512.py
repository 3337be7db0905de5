# UperNet with Wave-MLP b: the recipe of t, and the drop path rate of Hire-MLP of like size.
_base_ = './wave_mlp_t_upernet_ade20k-512x512.py'
model = dict(
    backbone=dict(arch='b', drop_path_rate=0.3),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
