# A small Mask R-CNN on the generated data, from random weights: minutes on two CPU cores.
_base_ = [
    '../_base_/models/mask_rcnn.py',
    '../_base_/datasets/shapes_detection.py',
    '../_base_/schedules/shapes.py',
    '../_base_/runtime_detection.py',
]
channels = 64
num_classes = 5
model = dict(
    backbone=dict(type='mlp_dense.HireMLP', arch=dict(depths=(1, 1, 2, 1), dims=(32, 64, 128, 192))),
    neck=dict(in_channels=[32, 64, 128, 192], out_channels=channels, num_outs=4),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=1), out_channels=channels, featmap_strides=[4, 8, 16], finest_scale=28
        ),
        bbox_head=dict(in_channels=channels, fc_out_channels=256, num_classes=num_classes),
        mask_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=1), out_channels=channels, featmap_strides=[4, 8, 16], finest_scale=28
        ),
        mask_head=dict(in_channels=channels, conv_out_channels=32, num_convs=2, num_classes=num_classes),
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=200, max_per_img=100), rcnn=dict(sampler=dict(num=32, pos_fraction=0.5))),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100)),
)
max_epochs = 15
train_cfg = dict(type='mlp_dense.EpochLoop', max_epochs=max_epochs, val_interval=8)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, eta_min=0.0, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=20), visualization=dict(interval=8))
