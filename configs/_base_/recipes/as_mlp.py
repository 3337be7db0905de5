# AS-MLP on ImageNet: Swin's recipe, whose learning rate changes in every iteration.
_base_ = [
    '../models/classifier.py',
    '../datasets/imagenet.py',
    '../schedules/imagenet.py',
    '../runtime_classification.py',
]
model = dict(backbone=dict(type='mlp_dense.ASMLP'))
optim_wrapper = dict(clip_grad=dict(max_norm=5.0))
param_scheduler = dict(convert_to_iter_based=True)
