# ADE20K, tested on images resized to multiples of 32 pixels, as PVT does.
_base_ = './ade20k.py'
test_pipeline = _base_.test_pipeline
test_pipeline.insert(2, dict(type='ResizeToMultiple', size_divisor=32))  # ground truth keeps its size
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1]['transforms'].insert(1, [dict(type='ResizeToMultiple', size_divisor=32)])

val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
