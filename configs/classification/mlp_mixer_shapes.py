# The small classifier on the generated data with MLP-Mixer.
_base_ = './hire_mlp_shapes.py'
model = dict(
    backbone=dict(
        type='mlp_dense.MLPMixer',
        arch=dict(_delete_=True, depths=(1, 1, 2, 1), dims=(128, 128, 128, 128), patch_size=8, grid_size=8),
    ),
)
