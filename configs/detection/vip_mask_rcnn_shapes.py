# The small Mask R-CNN on the generated data with ViP.
_base_ = './hire_mlp_mask_rcnn_shapes.py'
model = dict(
    backbone=dict(
        type='mlp_dense.VisionPermutator',
        arch=dict(_delete_=True, depths=(1, 1, 2, 1), dims=(128, 128, 128, 128), patch_size=7, segments=(8, 8, 8, 8)),
    ),
    neck=dict(in_channels=[128] * 4),
)
