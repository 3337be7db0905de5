# ViP on ImageNet: Hire-MLP's recipe without repeated augmentation, with random interpolation.
_base_ = './hire_mlp.py'
model = dict(backbone=dict(_delete_=True, type='mlp_dense.VisionPermutator', drop_path_rate=0.1))
train_pipeline = _base_.train_pipeline
train_pipeline[1]['interpolation'] = 'random'
train_dataloader = dict(
    batch_size=256,
    dataset=dict(pipeline=train_pipeline),
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
)
test_pipeline = _base_.test_pipeline
test_pipeline[1]['crop_pct'] = 0.9
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=2e-3))
auto_scale_lr = dict(base_batch_size=2048)
