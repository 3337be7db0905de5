# The default of AS-MLP.
_base_ = './as_mlp_tiny_upernet_ade20k-512x512.py'
