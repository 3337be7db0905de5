# Semantic FPN with ViP s14: the recipe of s7.
_base_ = './vip_s7_semantic_fpn_ade20k-512x512.py'
model = dict(
    backbone=dict(arch='s14'),
    neck=dict(in_channels=[384] * 4),
)
