# UperNet with Sparse-MLP s16, 80,000 iterations of 32 images: the recipe published for Hire-MLP small.
_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/segmentation_80k.py',
    '../_base_/runtime_segmentation.py',
]
model = dict(
    backbone=dict(type='mlp_dense.SparseMLP', arch='s16', drop_path_rate=0.1),
    decode_head=dict(in_channels=[512] * 4),
    auxiliary_head=dict(in_channels=512),
)
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(lr=1.2e-4), paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))))
default_hooks = dict(checkpoint=dict(interval=8000))
