# The default of Wave-MLP.
_base_ = './wave_mlp_t_upernet_ade20k-512x512.py'
