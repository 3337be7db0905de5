# CycleMLP b1 on 50 classes of Tiny-ImageNet, short enough for two CPU cores. docs/classification.md uses it
# for pre-training. The recipe was designed for this project.
_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/tiny_imagenet_50.py',
    '../_base_/schedules/imagenet.py',
    '../_base_/runtime_classification.py',
]
model = dict(
    backbone=dict(type='mlp_dense.CycleMLP', arch='b1'),
    head=dict(num_classes=50),
    train_cfg=dict(_delete_=True, loss=dict(type='LabelSmoothingCrossEntropy')),
)
max_epochs = 4
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(clip_grad=dict(max_norm=5.0))
param_scheduler = dict(length=max_epochs, warmup=1, convert_to_iter_based=True)
auto_scale_lr = dict(base_batch_size=64)
