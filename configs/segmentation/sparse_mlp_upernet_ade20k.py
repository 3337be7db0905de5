# The default of Sparse-MLP.
_base_ = './sparse_mlp_s16_upernet_ade20k-512x512.py'
