# Semantic FPN with Wave-MLP t, 40,000 iterations of 32 images: the recipe published for Hire-MLP small.
_base_ = [
    '../_base_/models/semantic_fpn.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/segmentation_40k.py',
    '../_base_/runtime_segmentation.py',
]
model = dict(
    backbone=dict(type='mlp_dense.WaveMLP', arch='t', drop_path_rate=0.1, norm_cfg=dict(type='SyncBN')),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(weight_decay=0.05))
default_hooks = dict(checkpoint=dict(interval=4000))
