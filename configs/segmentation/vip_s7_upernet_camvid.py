# UperNet with ViP s7 on CamVid.
_base_ = [
    '../_base_/models/upernet_camvid.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/segmentation_camvid.py',
    '../_base_/runtime_segmentation.py',
]
model = dict(
    backbone=dict(type='mlp_dense.VisionPermutator', arch='s7', drop_path_rate=0.1),
    decode_head=dict(in_channels=[192, 384, 384, 384]),
    auxiliary_head=dict(in_channels=384),
)
default_hooks = dict(checkpoint=dict(interval=400))
