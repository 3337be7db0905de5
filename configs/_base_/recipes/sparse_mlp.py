# Sparse-MLP on ImageNet: MLP-Mixer's recipe; the balancing loss of its experts is the backbone's. The images are
# normalized as for its detectors and segmentors.
_base_ = './mlp_mixer.py'
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(type='mlp_dense.SparseMLP'),
)
train_pipeline = _base_.train_pipeline
train_pipeline[1].pop('mean')
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
