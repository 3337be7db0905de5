# Hire-MLP tiny on ImageNet.
_base_ = '../_base_/recipes/hire_mlp.py'
model = dict(backbone=dict(arch='tiny', drop_path_rate=0.0))
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
auto_scale_lr = dict(base_batch_size=2048)
