# 300 epochs; AdamW, a step of the cosine in every epoch. Recipes state what differs; learning rates are for 8 GPUs.
train_cfg = dict(type='mlp_dense.EpochLoop', max_epochs=300, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
)
param_scheduler = dict(type='mlp_dense.CosineLR', length=300, lr_min=1e-5, warmup=20, warmup_lr=1e-6)
auto_scale_lr = dict(enable=False, base_batch_size=1024)
