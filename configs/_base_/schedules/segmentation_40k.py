# 40,000 iterations of 32 images (8 GPUs x 4: a child sets the batch), 63 epochs of ADE20K; no warm-up.
_base_ = './segmentation_160k.py'
train_cfg = dict(max_iters=40000, val_interval=4000)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=0, end=40000)]
auto_scale_lr = dict(base_batch_size=32)
