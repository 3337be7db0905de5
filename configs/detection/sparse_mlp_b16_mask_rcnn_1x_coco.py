# Mask R-CNN with Sparse-MLP b16, 1x.
_base_ = './sparse_mlp_s16_mask_rcnn_1x_coco.py'
model = dict(
    backbone=dict(arch='b16', drop_path_rate=0.2),
    neck=dict(in_channels=[768] * 4),
)
