# UperNet in place of Semantic FPN; otherwise the recipe of camvid.py.
_base_ = './camvid.py'
common = dict(dropout_ratio=0.1, num_classes=11, ignore_index=11, norm_cfg=dict(type='BN'), align_corners=False)
model = dict(
    neck=None,
    decode_head=dict(
        _delete_=True, type='UPerHead', in_index=[0, 1, 2, 3], channels=256, pool_scales=(1, 2, 3, 6), **common
    ),
    auxiliary_head=dict(type='FCNHead', in_index=2, channels=256, num_convs=1, concat_input=False, **common),
)
