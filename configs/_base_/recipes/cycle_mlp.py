# CycleMLP on ImageNet: repeated augmentation and a short warm-up. The official code keeps averaged weights, too, but
# reports the plain ones.
_base_ = [
    '../models/classifier.py',
    '../datasets/imagenet.py',
    '../schedules/imagenet.py',
    '../runtime_classification.py',
]
model = dict(backbone=dict(type='mlp_dense.CycleMLP', drop_path_rate=0.1))
train_dataloader = dict(sampler=dict(_delete_=True, type='mlp_dense.RepeatedAugmentation'))
param_scheduler = dict(warmup=5)
