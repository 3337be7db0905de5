# ViP l7 on ImageNet. Its stochastic depth is not public.
_base_ = '../_base_/recipes/vip.py'
model = dict(backbone=dict(arch='l7', drop_path_rate=0.3))
test_pipeline = _base_.test_pipeline
test_pipeline[1]['crop_pct'] = 0.875
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
