# A Semantic FPN with few channels and CycleMLP b1 on CamVid at half resolution, short enough for two CPU cores.
# docs/classification.md compares its initial weights. The recipe was designed for this project.
_base_ = [
    '../_base_/models/semantic_fpn.py',
    '../_base_/datasets/camvid_240x180.py',
    '../_base_/schedules/segmentation_camvid.py',
    '../_base_/runtime_segmentation.py',
]
model = dict(
    data_preprocessor=dict(size=(180, 240), seg_pad_val=11),
    backbone=dict(type='mlp_dense.CycleMLP', arch='b1', drop_path_rate=0.1),
    neck=dict(in_channels=[64, 128, 320, 512], out_channels=128),
    decode_head=dict(in_channels=[128, 128, 128, 128], channels=64, num_classes=11, ignore_index=11),
)
train_cfg = dict(max_iters=500, val_interval=250)
optim_wrapper = dict(optimizer=dict(lr=4e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=50, end=500),
]
default_hooks = dict(checkpoint=dict(interval=250))
auto_scale_lr = dict(base_batch_size=4)
