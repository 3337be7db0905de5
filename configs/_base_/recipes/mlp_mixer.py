# MLP-Mixer on ImageNet from random weights, as big_vision trains B/16: a sigmoid for each class, little augmentation,
# linear decay after 10,000 iterations (32 epochs of 312) of warm-up.
_base_ = [
    '../models/classifier.py',
    '../datasets/imagenet.py',
    '../schedules/imagenet.py',
    '../runtime_classification.py',
]
half = [127.5] * 3
model = dict(
    data_preprocessor=dict(mean=half, std=half),
    backbone=dict(type='mlp_dense.MLPMixer', drop_path_rate=0.1),
    head=dict(bias=-6.9),
    train_cfg=dict(
        _delete_=True,
        loss=dict(type='BinaryCrossEntropy', smoothing=0.0, sum_classes=True),
        mixup=dict(mixup_alpha=0.5, cutmix_alpha=0.0, label_smoothing=0.0),
    ),
)
train_pipeline = _base_.train_pipeline
train_pipeline[1].update(auto_augment='rand-m15-n2-mmax15', interpolation='bilinear', mean=(0.5,) * 3)
train_dataloader = dict(batch_size=512, dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(optimizer=dict(weight_decay=0.1), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, begin=0, end=32, convert_to_iter_based=True),
    dict(type='LinearLR', start_factor=1.0, end_factor=0.01, begin=32, end=300, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=4096)
