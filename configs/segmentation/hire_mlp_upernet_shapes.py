# A small UperNet on the generated data, from random weights: minutes on two CPU cores.
_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/shapes_segmentation.py',
    '../_base_/schedules/shapes.py',
    '../_base_/runtime_segmentation.py',
]
num_classes = 6
model = dict(
    data_preprocessor=dict(size=None, size_divisor=32),
    backbone=dict(type='mlp_dense.HireMLP', arch=dict(depths=(2, 2, 2, 2), dims=(32, 64, 128, 192))),
    decode_head=dict(in_channels=[32, 64, 128, 192], channels=64, num_classes=num_classes),
    auxiliary_head=dict(in_channels=128, channels=64, num_classes=num_classes),
)
max_iters = 1000
train_cfg = dict(type='mlp_dense.IterLoop', max_iters=max_iters, val_interval=500)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=40, end=max_iters, eta_min=0.0),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=500), visualization=dict(interval=8))
