# Semantic FPN with Wave-MLP t_dw.
_base_ = './wave_mlp_t_semantic_fpn_ade20k-512x512.py'
model = dict(backbone=dict(arch='t_dw'))
