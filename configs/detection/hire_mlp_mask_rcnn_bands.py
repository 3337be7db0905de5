# The small Mask R-CNN on images of five bands and 16 bits: python tools/make_shapes.py data/shapes_bands --bands 5
_base_ = './hire_mlp_mask_rcnn_shapes.py'
model = dict(
    backbone=dict(in_channels=5),
    data_preprocessor=dict(
        mean=[5448.11, 4923.23, 5075.16, 4934.66, 5066.2],
        std=[2082.13, 2142.74, 2037.25, 1795.38, 1818.94],
        bgr_to_rgb=False,
    ),
)
load = dict(type='mlp_dense.LoadMultiBandImage')
train_pipeline = [load, *_base_.train_pipeline[1:]]
test_pipeline = [load, *_base_.test_pipeline[1:]]
tta_pipeline = [load, *_base_.tta_pipeline[1:]]
data_root = 'data/shapes_bands/'
bands = dict(data_root=data_root, metainfo=dict(classes=('cold disc', 'warm disc', 'triangle', 'star', 'cross')))
train_dataloader = dict(dataset=dict(**bands, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**bands, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator
default_hooks = dict(visualization=dict(draw=False))  # that of mmdet reads 8-bit files
