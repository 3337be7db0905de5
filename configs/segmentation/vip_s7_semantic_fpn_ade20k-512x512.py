# Semantic FPN with ViP s7, 40,000 iterations of 32 images: the recipe published for Hire-MLP small.
_base_ = [
    '../_base_/models/semantic_fpn.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/segmentation_40k.py',
    '../_base_/runtime_segmentation.py',
]
model = dict(
    backbone=dict(type='mlp_dense.VisionPermutator', arch='s7', drop_path_rate=0.1),
    neck=dict(in_channels=[192, 384, 384, 384]),
)
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(weight_decay=0.05), paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))))
default_hooks = dict(checkpoint=dict(interval=4000))
