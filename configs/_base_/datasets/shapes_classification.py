# The generated data set (tools/make_shapes.py --classify): 1,000 training and 250 validation images of 64x64.
data_root = 'data/shapes_classes/'
train_pipeline = [
    dict(type='mlp_dense.LoadImage'),
    dict(
        type='mlp_dense.TimmTransform',
        input_size=64,
        is_training=True,
        scale=(0.5, 1.0),
        vflip=0.5,
        color_jitter=0.0,
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
    batch_size=32,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='mlp_dense.RepeatedAugmentation'),
    dataset=dict(
        type='mlp_dense.ClassFolders', data_root=data_root, data_prefix=dict(img_path='train'), pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=50,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mlp_dense.ClassFolders', data_root=data_root, data_prefix=dict(img_path='val'), pipeline=test_pipeline
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='mlp_dense.Accuracy')
test_evaluator = val_evaluator
