# UperNet with MLP-Mixer s16 on CamVid.
_base_ = [
    '../_base_/models/upernet_camvid.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/segmentation_camvid.py',
    '../_base_/runtime_segmentation.py',
]
model = dict(
    # Google's weights want mean and deviation 0.5; for MIIL's give mean=[0.0] * 3, std=[255.0] * 3.
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(type='mlp_dense.MLPMixer', arch='s16', drop_path_rate=0.1),
    decode_head=dict(in_channels=[512] * 4),
    auxiliary_head=dict(in_channels=512),
)
default_hooks = dict(checkpoint=dict(interval=400))
