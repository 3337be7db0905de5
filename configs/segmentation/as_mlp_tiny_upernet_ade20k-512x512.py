# UperNet with AS-MLP tiny, 160,000 iterations of 16 images.
_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/segmentation_160k.py',
    '../_base_/runtime_segmentation.py',
]
model = dict(
    backbone=dict(type='mlp_dense.ASMLP', arch='tiny', drop_path_rate=0.3),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))))
