# The small Mask R-CNN on the generated data with AS-MLP.
_base_ = './hire_mlp_mask_rcnn_shapes.py'
model = dict(backbone=dict(type='mlp_dense.ASMLP'))
