# UperNet for the 11 classes of CamVid; the label 11 (void) is ignored, and fills the padding.
_base_ = './upernet.py'
classes = dict(num_classes=11, ignore_index=11)
model = dict(
    data_preprocessor=dict(size=(360, 480), seg_pad_val=11), decode_head=dict(**classes), auxiliary_head=dict(**classes)
)
