# Semantic FPN with CycleMLP b1: the recipe of PVT with the backbone swapped, in its form of 40,000
# iterations of 32 images (the other is 80,000 of 16 at half the learning rate).
_base_ = [
    '../_base_/models/semantic_fpn.py',
    '../_base_/datasets/ade20k_multiple_of_32.py',
    '../_base_/schedules/segmentation_40k.py',
    '../_base_/runtime_segmentation.py',
]
model = dict(
    backbone=dict(type='mlp_dense.CycleMLP', arch='b1'),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(weight_decay=1e-4))
default_hooks = dict(checkpoint=dict(interval=4000))
