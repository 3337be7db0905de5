# UperNet with MLP-Mixer s16, 80,000 iterations of 32 images: the recipe published for Hire-MLP small.
_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/segmentation_80k.py',
    '../_base_/runtime_segmentation.py',
]
model = dict(
    # Google's weights want mean and deviation 0.5; for MIIL's give mean=[0.0] * 3, std=[255.0] * 3.
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(type='mlp_dense.MLPMixer', arch='s16', drop_path_rate=0.1),
    decode_head=dict(in_channels=[512] * 4),
    auxiliary_head=dict(in_channels=512),
)
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(lr=1.2e-4), paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))))
default_hooks = dict(checkpoint=dict(interval=8000))
