# UperNet with Sparse-MLP s16 on CamVid.
_base_ = [
    '../_base_/models/upernet_camvid.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/segmentation_camvid.py',
    '../_base_/runtime_segmentation.py',
]
model = dict(
    backbone=dict(type='mlp_dense.SparseMLP', arch='s16', drop_path_rate=0.1),
    decode_head=dict(in_channels=[512] * 4),
    auxiliary_head=dict(in_channels=512),
)
default_hooks = dict(checkpoint=dict(interval=400))
