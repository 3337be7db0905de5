# UperNet with ViP s14: the recipe of s7.
_base_ = './vip_s7_upernet_ade20k-512x512.py'
model = dict(
    backbone=dict(arch='s14'),
    decode_head=dict(in_channels=[384] * 4),
)
