# The default of ViP.
_base_ = './vip_s7_upernet_ade20k-512x512.py'
