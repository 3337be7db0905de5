# AdamW on one machine for the generated data. Children give the length and the decay of the learning rate.
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='AmpOptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05), clip_grad=dict(max_norm=10.0)
)
auto_scale_lr = dict(enable=False, base_batch_size=8)
