# UperNet with MLP-Mixer b16: the recipe of s16.
_base_ = './mlp_mixer_s16_upernet_ade20k-512x512.py'
model = dict(
    backbone=dict(arch='b16', drop_path_rate=0.2),
    decode_head=dict(in_channels=[768] * 4),
    auxiliary_head=dict(in_channels=768),
)
