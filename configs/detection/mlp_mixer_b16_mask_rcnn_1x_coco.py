# Mask R-CNN with MLP-Mixer b16, 1x.
_base_ = './mlp_mixer_s16_mask_rcnn_1x_coco.py'
model = dict(
    backbone=dict(arch='b16', drop_path_rate=0.2),
    neck=dict(in_channels=[768] * 4),
)
