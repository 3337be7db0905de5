# The small UperNet on the generated data with Sparse-MLP.
_base_ = './hire_mlp_upernet_shapes.py'
model = dict(
    backbone=dict(
        type='mlp_dense.SparseMLP',
        arch=dict(_delete_=True, depths=(1, 1, 2, 1), dims=(128, 128, 128, 128), patch_size=8, grid_size=8),
    ),
    decode_head=dict(in_channels=[128] * 4),
    auxiliary_head=dict(in_channels=128),
)
