# Mask R-CNN with AS-MLP small, 1x. The shift size is 5: published configs of small say 3, which
# loads the same weights and gives other outputs.
_base_ = './as_mlp_tiny_mask_rcnn_1x_coco.py'
model = dict(backbone=dict(arch='small'))
