# Mask R-CNN with AS-MLP tiny, 3x, multi-scale training. The shift size is 5: published 3x
# configs say 3, which loads the same weights and gives other outputs.
_base_ = [
    '../_base_/models/mask_rcnn.py',
    '../_base_/datasets/coco_instance_multiscale.py',
    '../_base_/schedules/detection_3x.py',
    '../_base_/runtime_detection.py',
]
model = dict(
    backbone=dict(type='mlp_dense.ASMLP', arch='tiny', drop_path_rate=0.2),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))))
