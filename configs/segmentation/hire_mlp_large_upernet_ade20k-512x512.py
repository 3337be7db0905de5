# UperNet with Hire-MLP large: the recipe published for small, and the drop path rate of its detectors.
_base_ = './hire_mlp_small_upernet_ade20k-512x512.py'
model = dict(
    backbone=dict(arch='large', drop_path_rate=0.3),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
