# Hire-MLP on ImageNet: repeated augmentation, and 10 more epochs at the last learning rate.
_base_ = [
    '../models/classifier.py',
    '../datasets/imagenet.py',
    '../schedules/imagenet.py',
    '../runtime_classification.py',
]
model = dict(backbone=dict(type='mlp_dense.HireMLP'))
train_dataloader = dict(sampler=dict(_delete_=True, type='mlp_dense.RepeatedAugmentation'))
train_cfg = dict(max_epochs=310)
