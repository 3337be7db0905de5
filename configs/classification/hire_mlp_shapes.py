# A small classifier on the generated data, from random weights, trained as on ImageNet: minutes on two CPU cores.
_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/shapes_classification.py',
    '../_base_/schedules/imagenet.py',
    '../_base_/runtime_classification.py',
]
model = dict(
    backbone=dict(type='mlp_dense.HireMLP', arch=dict(depths=(2, 2, 2, 2), dims=(32, 64, 128, 192))),
    head=dict(num_classes=5),
    train_cfg=dict(mixup=dict(mixup_alpha=0.1, cutmix_alpha=0.1), erasing=dict(probability=0.1)),
)
max_epochs = 20
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
optim_wrapper = dict(clip_grad=dict(max_norm=5.0))
param_scheduler = dict(length=max_epochs, warmup=2, convert_to_iter_based=True)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=5))
auto_scale_lr = dict(base_batch_size=32)
