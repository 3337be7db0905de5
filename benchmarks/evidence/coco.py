# Mask R-CNN on a few images of COCO from random weights: the same recipe for every backbone, which learning.py puts in.
# Its validations are on the training images (does a model fit real data?), its test is on the validation images.
_base_ = [
    '../../configs/_base_/models/mask_rcnn.py',
    '../../configs/_base_/datasets/coco_instance.py',
    '../../configs/_base_/schedules/detection_1x.py',
    '../../configs/_base_/runtime_detection.py',
]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(640, 384), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(640, 384), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=_base_.meta_keys),
]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = dict(
    dataset=dict(
        pipeline=test_pipeline,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
    )
)
val_evaluator = dict(ann_file=_base_.data_root + 'annotations/instances_train2017.json')
train_cfg = dict(max_epochs=48, val_interval=8)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=2e-4), clip_grad=dict(max_norm=5.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=100),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=48, milestones=[36, 44], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(interval=4, max_keep_ckpts=1, save_best=None), visualization=dict(draw=False))
