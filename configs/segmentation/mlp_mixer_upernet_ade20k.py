# The default of MLP-Mixer.
_base_ = './mlp_mixer_s16_upernet_ade20k-512x512.py'
