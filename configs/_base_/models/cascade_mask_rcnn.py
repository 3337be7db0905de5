# Cascade Mask R-CNN (arXiv 1906.09756) as Swin and AS-MLP use it: three 4conv1fc box heads with SyncBN, trained with
# GIoU on decoded boxes. The rest is that of mask_rcnn.py.
_base_ = './mask_rcnn.py'
box_heads = [
    dict(
        _base_.model.roi_head.bbox_head,
        type='ConvFCBBoxHead',
        num_shared_convs=4,
        num_shared_fcs=1,
        conv_out_channels=256,
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=stds),
        reg_decoded_bbox=True,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        loss_bbox=dict(type='GIoULoss', loss_weight=10.0),
    )
    for stds in ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])
]
box_stages = [
    dict(
        _base_.model.train_cfg.rcnn,
        assigner=dict(
            _base_.model.train_cfg.rcnn.assigner,
            pos_iou_thr=iou,
            neg_iou_thr=iou,
            min_pos_iou=iou,
            match_low_quality=False,
        ),
    )
    for iou in (0.5, 0.6, 0.7)
]
model = dict(
    type='CascadeRCNN',
    rpn_head=dict(loss_bbox=dict(type='SmoothL1Loss', beta=1 / 9)),
    roi_head=dict(type='CascadeRoIHead', num_stages=3, stage_loss_weights=[1, 0.5, 0.25], bbox_head=box_heads),
    train_cfg=dict(rpn_proposal=dict(max_per_img=2000), rcnn=box_stages),
)
