# The small classifier on the generated data with ViP.
_base_ = './hire_mlp_shapes.py'
model = dict(
    backbone=dict(
        type='mlp_dense.VisionPermutator',
        arch=dict(_delete_=True, depths=(1, 1, 2, 1), dims=(128, 128, 128, 128), patch_size=7, segments=(8, 8, 8, 8)),
    ),
)
# 8 x 8 patches of 7 pixels: its published sizes are multiples of 7, too.
train_pipeline = _base_.train_pipeline
train_pipeline[1]['input_size'] = 56
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
test_pipeline = _base_.test_pipeline
test_pipeline[1]['input_size'] = 56
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
