# UperNet with CycleMLP b1: the recipe of Swin; the paper's own is not published (unconfirmed).
_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/segmentation_160k.py',
    '../_base_/runtime_segmentation.py',
]
model = dict(
    backbone=dict(type='mlp_dense.CycleMLP', arch='b1'),
    decode_head=dict(in_channels=[64, 128, 320, 512]),
    auxiliary_head=dict(in_channels=320),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))))
