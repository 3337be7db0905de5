# UperNet with AS-MLP small.
_base_ = './as_mlp_tiny_upernet_ade20k-512x512.py'
model = dict(backbone=dict(arch='small'))
