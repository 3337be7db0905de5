"""A backbone whose channels do not fit the neck or the heads is refused."""

import pytest
from mmdet.models.necks import FPN
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mlp_dense import MLPBackbone, load_model
from mlp_dense.checks.channels import check_channels
from mlp_dense.config.config_file import read_config
from mlp_dense.errors import UserError
from mlp_dense.training.machine import adapt_to_cpu
from support.configs import CONFIGS, DETECTION, SEGMENTATION, thin
from support.upstream import built_without_memory, returned_channels


class Stub(MLPBackbone):
    """A backbone of this package that returns maps of these channels."""

    def __init__(self, channels: list[int]):
        nn.Module.__init__(self)
        self.out_channels = tuple(channels)


def test_every_config_has_matching_channels():
    for path in CONFIGS:
        cfg = read_config(path)
        thin(cfg)
        adapt_to_cpu(cfg)
        init_default_scope(cfg.default_scope)
        try:
            check_channels(MODELS.build(cfg.model))
        except UserError as error:
            pytest.fail(f'{path.stem}: {error}')


@pytest.mark.parametrize(
    ('config', 'option', 'sentence'),
    [
        (DETECTION, 'model.backbone.arch=large', r'model\.neck\.in_channels is .* HireMLP returns \['),
        (DETECTION, 'model.neck.in_channels=[1,2,3]', r'model\.neck\.in_channels is \[1, 2, 3\]'),
        (SEGMENTATION, 'model.backbone.arch=large', r'model\.decode_head\.in_channels is'),
        (SEGMENTATION, 'model.auxiliary_head.in_channels=7', r'model\.auxiliary_head\.in_channels is 7'),
        (
            SEGMENTATION,
            'model.auxiliary_head.in_index=9',
            'head.in_channels is .* at in_index 9, but HireMLP',
        ),
    ],
)
def test_mismatched_channels_are_refused(config, option, sentence):
    with pytest.raises(UserError, match=sentence):
        load_model(read_config(config, [option]), None, 'cpu')


UPSTREAM = {  # paths in the errors by package and config
    'mmdet': {
        'retinanet/retinanet_r50_fpn_1x_coco.py': 'neck',
        'libra_rcnn/libra-retinanet_r50_fpn_1x_coco.py': 'neck.0',
        'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py': 'neck',
        'hrnet/faster-rcnn_hrnetv2p-w18-1x_coco.py': 'neck',
        'nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco.py': 'neck',
        'fpg/faster-rcnn_r50_fpg_crop640-50e_coco.py': 'neck',
        'yolof/yolof_r50-c5_8xb8-1x_coco.py': 'neck',
        'rtmdet/rtmdet_tiny_8xb32-300e_coco.py': 'neck',
        'yolox/yolox_tiny_8xb8-300e_coco.py': 'neck',
        'yolo/yolov3_d53_8xb8-320-273e_coco.py': 'neck',
        'centernet/centernet_r18_8xb16-crop512-140e_coco.py': 'neck',
        'faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py': 'rpn_head',
        'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py': 'panoptic_head',
        'maskformer/maskformer_r50_ms-16xb1-75e_coco.py': 'panoptic_head',
    },
    'mmseg': {
        'upernet/upernet_r50_4xb4-80k_ade20k-512x512.py': 'decode_head',
        'knet/knet-s3_r50-d8_upernet_8xb2-adamw-80k_ade20k-512x512.py': 'decode_head.kernel_generate_head',
        'ocrnet/ocrnet_hr18_4xb4-80k_ade20k-512x512.py': 'decode_head.0',
        'sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py': 'neck',
        'mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py': 'decode_head',
        'maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py': 'decode_head',
    },
}


@pytest.mark.slow
@pytest.mark.parametrize('package, name', [(package, name) for package in UPSTREAM for name in UPSTREAM[package]])
def test_necks_and_heads_of_other_projects_are_compared(package, name):
    """The maps of the original backbone fit; another number of channels or of maps does not."""
    model = built_without_memory(package, name)
    channels = returned_channels(model.backbone)
    model.backbone = Stub(channels)
    check_channels(model)
    for changed in ([*channels[:-1], channels[-1] + 1], channels[:-1]):
        model.backbone = Stub(changed)
        path = UPSTREAM[package][name].replace('.', r'\.')
        with pytest.raises(UserError, match=rf'^model\.{path}\.in_channels is .*, but Stub returns \['):
            check_channels(model)


def test_necks_that_select_maps_themselves_are_accepted():
    class LastThree(FPN):
        def forward(self, maps):
            return super().forward(maps[1:])

    model = nn.Module()
    model.backbone, model.neck = Stub([64, 128, 320, 512]), LastThree([128, 320, 512], 8, 3)
    check_channels(model)
    model.neck = FPN([128, 320, 512], 8, 3)
    with pytest.raises(UserError, match=r'is \[128, 320, 512\], but'):
        check_channels(model)
