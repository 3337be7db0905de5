# 80,000 iterations of 32 images (8 GPUs x 4: a child sets the batch), 127 epochs of ADE20K.
# The rest is that of segmentation_160k.py.
_base_ = './segmentation_160k.py'
train_cfg = dict(max_iters=80000, val_interval=8000)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=800),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=800, end=80000),
]
auto_scale_lr = dict(base_batch_size=32)
