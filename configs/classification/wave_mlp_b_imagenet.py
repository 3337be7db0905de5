# Wave-MLP b on ImageNet.
_base_ = '../_base_/recipes/wave_mlp.py'
model = dict(backbone=dict(arch='b'))
test_pipeline = _base_.test_pipeline
test_pipeline[1]['crop_pct'] = 0.875
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
