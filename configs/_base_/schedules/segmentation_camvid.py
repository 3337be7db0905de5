# 4,000 iterations of 8 images on one GPU: 87 epochs of CamVid. The recipe was designed for this project.
_base_ = './segmentation_160k.py'
train_cfg = dict(max_iters=4000, val_interval=400)
optim_wrapper = dict(optimizer=dict(lr=2e-4), paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=200),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=200, end=4000),
]
auto_scale_lr = dict(base_batch_size=8)
