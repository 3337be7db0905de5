# A classifier, trained as DeiT (arXiv 2012.12877) is: Mixup, CutMix, label smoothing and erasing.
_base_ = './normalization.py'
model = dict(
    type='mlp_dense.ImageClassifier',
    data_preprocessor=dict(type='ImgDataPreprocessor'),
    head=dict(num_classes=1000),
    train_cfg=dict(
        loss=dict(type='SoftTargetCrossEntropy'),
        mixup=dict(mixup_alpha=0.8, cutmix_alpha=1.0, switch_prob=0.5, label_smoothing=0.1),
        erasing=dict(probability=0.25, mode='pixel'),
    ),
)
