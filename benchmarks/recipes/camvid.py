# Semantic FPN on CamVid from random weights, one recipe for every backbone. learning.py sets the backbone. It trains on
# the training and validation images and tests on complete test images. This project's own recipe.
_base_ = [
    '../../configs/_base_/models/semantic_fpn.py',
    '../../configs/_base_/datasets/camvid.py',
    '../../configs/_base_/schedules/segmentation_camvid.py',
    '../../configs/_base_/runtime_segmentation.py',
]
model = dict(
    data_preprocessor=dict(size=(360, 480), seg_pad_val=11),
    decode_head=dict(num_classes=11, ignore_index=11, norm_cfg=dict(type='BN')),
)
# PhotoMetricDistortion is slow on a CPU.
train_pipeline = [transform for transform in _base_.train_pipeline if transform['type'] != 'PhotoMetricDistortion']
split = dict(_base_.camvid, pipeline=train_pipeline)
train_dataloader = dict(
    num_workers=2,
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            dict(**split, data_prefix=dict(img_path='train', seg_map_path='trainannot')),
            dict(**split, data_prefix=dict(img_path='val', seg_map_path='valannot')),
        ],
    ),
)
val_dataloader = dict(batch_size=8, num_workers=2, dataset=_base_.test_dataloader.dataset)
test_dataloader = val_dataloader
train_cfg = dict(val_interval=800)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=6e-4), clip_grad=dict(max_norm=5.0))
default_hooks = dict(checkpoint=dict(interval=400, max_keep_ckpts=1, save_best=None), visualization=dict(draw=False))
