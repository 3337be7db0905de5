# RetinaNet with CycleMLP b1, 1x: the recipe of PVT with the backbone swapped, according to its author.
_base_ = [
    '../_base_/models/retinanet.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/detection_1x.py',
    '../_base_/runtime_detection.py',
]
model = dict(
    backbone=dict(type='mlp_dense.CycleMLP', arch='b1'),
    neck=dict(in_channels=[128, 320, 512]),
)
optim_wrapper = dict(optimizer=dict(lr=1e-4, weight_decay=1e-4))
