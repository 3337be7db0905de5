# Mask R-CNN with CycleMLP b5, 1x.
_base_ = './cycle_mlp_b1_mask_rcnn_1x_coco.py'
model = dict(backbone=dict(arch='b5'), neck=dict(in_channels=[96, 192, 384, 768]))
