# Mask R-CNN with MLP-Mixer s16, 1x: Swin's recipe, as for the other families; nothing was published.
_base_ = [
    '../_base_/models/mask_rcnn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/detection_1x.py',
    '../_base_/runtime_detection.py',
]
model = dict(
    # Google's weights want mean and deviation 0.5; for MIIL's give mean=[0.0] * 3, std=[255.0] * 3.
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(type='mlp_dense.MLPMixer', arch='s16', drop_path_rate=0.1),
    neck=dict(in_channels=[512] * 4),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))))
