# ImageNet-1k (arXiv 1409.0575): 1,281,167 training and 50,000 validation images of 1000 classes, in folders named by
# their synsets. DeiT's augmentation, which the official codes of these families share.
data_root = 'data/imagenet/'
train_pipeline = [
    dict(type='mlp_dense.LoadImage'),
    dict(
        type='mlp_dense.TimmTransform',
        input_size=224,
        is_training=True,
        scale=(0.08, 1.0),
        hflip=0.5,
        auto_augment='rand-m9-mstd0.5-inc1',
        interpolation='bicubic',
    ),
    dict(type='mlp_dense.PackClass'),
]
test_pipeline = [
    dict(type='mlp_dense.LoadImage'),
    dict(type='mlp_dense.TimmTransform', input_size=224, crop_pct=0.875, interpolation='bicubic'),
    dict(type='mlp_dense.PackClass'),
]

train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='mlp_dense.ImageNet', data_root=data_root, data_prefix=dict(img_path='train'), pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mlp_dense.ImageNet', data_root=data_root, data_prefix=dict(img_path='val'), pipeline=test_pipeline
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='mlp_dense.Accuracy')
test_evaluator = val_evaluator
