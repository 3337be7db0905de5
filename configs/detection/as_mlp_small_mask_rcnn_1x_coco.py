# Mask R-CNN with AS-MLP small, 1x. Shift size 5; one published config of this model says 3, which its weights do
# not mean.
_base_ = './as_mlp_tiny_mask_rcnn_1x_coco.py'
model = dict(backbone=dict(arch='small'))
