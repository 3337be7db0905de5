# Semantic FPN with CycleMLP b4.
_base_ = './cycle_mlp_b1_semantic_fpn_ade20k-512x512.py'
model = dict(backbone=dict(arch='b4'))
