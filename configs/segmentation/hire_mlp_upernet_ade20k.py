# UperNet with Hire-MLP small: 80,000 iterations of 32 pictures (8 GPUs x 4). ImageNet weights: see the README.
_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/segmentation_160k.py',
    '../_base_/runtime_segmentation.py',
]
model = dict(
    backbone=dict(type='mlp_dense.HireMLP', arch='small', drop_path_rate=0.2, norm_cfg=dict(type='SyncBN')),
    decode_head=dict(in_channels=[64, 128, 320, 512]),
    auxiliary_head=dict(in_channels=320),
)
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(lr=1.2e-4, weight_decay=0.01))
train_cfg = dict(max_iters=80000, val_interval=8000)
default_hooks = dict(checkpoint=dict(interval=8000))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=800),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=800, end=80000),
]
auto_scale_lr = dict(base_batch_size=32)
