# What all detectors share.
_base_ = './normalization.py'
model = dict(data_preprocessor=dict(type='mlp_dense.DetDataPreprocessor', pad_size_divisor=32))
tta_model = dict(type='mlp_dense.InstanceTTAModel', nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
