# UperNet with CycleMLP b5.
_base_ = './cycle_mlp_b1_upernet_ade20k-512x512.py'
model = dict(
    backbone=dict(arch='b5'), decode_head=dict(in_channels=[96, 192, 384, 768]), auxiliary_head=dict(in_channels=384)
)
