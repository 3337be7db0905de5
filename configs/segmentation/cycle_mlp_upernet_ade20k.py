# The default of CycleMLP.
_base_ = './cycle_mlp_b2_upernet_ade20k-512x512.py'
