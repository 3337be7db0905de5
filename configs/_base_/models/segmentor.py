# What all segmentors share.
_base_ = './normalization.py'
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='mlp_dense.SegDataPreProcessor', pad_val=0, seg_pad_val=255, size=(512, 512)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
tta_model = dict(type='SegTTAModel')
