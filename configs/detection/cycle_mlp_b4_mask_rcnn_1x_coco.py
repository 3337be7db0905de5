# Mask R-CNN with CycleMLP b4, 1x.
_base_ = './cycle_mlp_b1_mask_rcnn_1x_coco.py'
model = dict(backbone=dict(arch='b4'))
