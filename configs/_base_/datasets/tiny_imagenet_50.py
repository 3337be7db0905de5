# 50 classes of Tiny-ImageNet: 25,000 training and 2,500 validation images of 64x64 pixels, in two files.
data_root = 'data/tiny_imagenet_50/'
train_pipeline = [
    dict(type='mlp_dense.LoadImage'),
    dict(
        type='mlp_dense.TimmTransform',
        input_size=64,
        is_training=True,
        scale=(0.35, 1.0),
        color_jitter=0.2,
        interpolation='bicubic',
    ),
    dict(type='mlp_dense.PackClass'),
]
test_pipeline = [
    dict(type='mlp_dense.LoadImage'),
    dict(type='mlp_dense.TimmTransform', input_size=64, crop_pct=1.0, interpolation='bicubic'),
    dict(type='mlp_dense.PackClass'),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='mlp_dense.ImageArchive', data_root=data_root, ann_file='train.npz', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=50,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='mlp_dense.ImageArchive', data_root=data_root, ann_file='val.npz', pipeline=test_pipeline),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='mlp_dense.Accuracy')
test_evaluator = val_evaluator
