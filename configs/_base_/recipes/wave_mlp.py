# Wave-MLP on ImageNet: Hire-MLP's recipe with a short warm-up, random interpolation, and averaged weights, which are
# tested and saved.
_base_ = './hire_mlp.py'
model = dict(backbone=dict(_delete_=True, type='mlp_dense.WaveMLP', drop_path_rate=0.1))
train_pipeline = _base_.train_pipeline
train_pipeline[1]['interpolation'] = 'random'
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
test_pipeline = _base_.test_pipeline
test_pipeline[1]['crop_pct'] = 0.9
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
param_scheduler = dict(warmup=5)
custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', momentum=4e-5)]
