# CamVid (Brostow et al., Pattern Recognition Letters 2009) in the form of SegNet's tutorial: 367
# training, 101 validation and 233 test images of 480x360, 11 classes; the label 11 (void) is ignored.
_base_ = './tta_segmentation.py'
data_root = 'data/camvid/'
camvid = dict(
    type='BaseSegDataset',
    metainfo=dict(
        classes=(
            'sky',
            'building',
            'pole',
            'road',
            'pavement',
            'tree',
            'sign',
            'fence',
            'car',
            'pedestrian',
            'bicyclist',
        ),
        palette=[
            [128, 128, 128],
            [128, 0, 0],
            [192, 192, 128],
            [128, 64, 128],
            [60, 40, 222],
            [128, 128, 0],
            [192, 128, 128],
            [64, 64, 128],
            [64, 0, 128],
            [64, 64, 0],
            [0, 128, 192],
        ],
    ),
    data_root=data_root,
    img_suffix='.jpg',
    seg_map_suffix='.png',
    ignore_index=11,
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(480, 360), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(360, 480), cat_max_ratio=0.75, ignore_index=11),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1]['transforms'].insert(
    0,
    [dict(type='Resize', scale_factor=ratio, keep_ratio=True) for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)],
)

train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(**camvid, data_prefix=dict(img_path='train', seg_map_path='trainannot'), pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**camvid, data_prefix=dict(img_path='val', seg_map_path='valannot'), pipeline=test_pipeline),
)
test_dataloader = dict(
    val_dataloader,
    dataset=dict(**camvid, data_prefix=dict(img_path='test', seg_map_path='testannot'), pipeline=test_pipeline),
)

val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'], ignore_index=11)
test_evaluator = val_evaluator
