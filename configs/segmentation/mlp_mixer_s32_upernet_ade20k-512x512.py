# UperNet with MLP-Mixer s32: the recipe of s16.
_base_ = './mlp_mixer_s16_upernet_ade20k-512x512.py'
model = dict(backbone=dict(arch='s32'))
