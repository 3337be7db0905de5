# Semantic FPN with Sparse-MLP b16: the recipe of s16.
_base_ = './sparse_mlp_s16_semantic_fpn_ade20k-512x512.py'
model = dict(
    backbone=dict(arch='b16', drop_path_rate=0.2),
    neck=dict(in_channels=[768] * 4),
)
