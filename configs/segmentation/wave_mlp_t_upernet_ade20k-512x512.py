# UperNet with Wave-MLP t, 80,000 iterations of 32 images: the recipe published for Hire-MLP small, which
# the authors' segmentation code uses for both.
_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/segmentation_80k.py',
    '../_base_/runtime_segmentation.py',
]
model = dict(
    backbone=dict(type='mlp_dense.WaveMLP', arch='t', drop_path_rate=0.1, norm_cfg=dict(type='SyncBN')),
    decode_head=dict(in_channels=[64, 128, 320, 512]),
    auxiliary_head=dict(in_channels=320),
)
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(lr=1.2e-4))
default_hooks = dict(checkpoint=dict(interval=8000))
