# Mask R-CNN on a few images of COCO from random weights, one recipe for every backbone. learning.py sets the backbone
# and the sizes. It validates on the training images (does a model fit real data?) and tests on the validation images.
_base_ = [
    '../../configs/_base_/models/mask_rcnn.py',
    '../../configs/_base_/datasets/coco_instance.py',
    '../../configs/_base_/schedules/detection_1x.py',
    '../../configs/_base_/runtime_detection.py',
]
val_dataloader = dict(dataset=dict(ann_file='annotations/instances_train2017.json', data_prefix=dict(img='train2017/')))
test_dataloader = _base_.test_dataloader
val_evaluator = dict(ann_file=_base_.data_root + 'annotations/instances_train2017.json')
train_cfg = dict(max_epochs=48, val_interval=8)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=2e-4), clip_grad=dict(max_norm=5.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=100),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=48, milestones=[36, 44], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(interval=4, max_keep_ckpts=1, save_best=None), visualization=dict(draw=False))
