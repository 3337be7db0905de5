# The default of Hire-MLP.
_base_ = './hire_mlp_small_upernet_ade20k-512x512.py'
