"""Complete official AS-MLP detectors and segmentors (mmdet 2.11 and mmseg 0.11) load into the configs.

This file contains the names and shapes of their heads in those versions. The heads of mmdet 3 and mmseg 1 still use
them.
"""

import pytest
import torch
from mmengine.config import Config
from torch import nn

import mlp_dense
from mlp_dense.checkpoints.reading import Checkpoint
from mlp_dense.inference import compare_with_model
from reference import reference_of
from reference.common import Shapes
from support.checkpoints import assert_computes, prefixed
from support.configs import config, thin
from support.models import SMALL

CONFIGS = {
    'mask_rcnn': 'detection/as_mlp_tiny_mask_rcnn_1x_coco',
    'cascade_mask_rcnn': 'detection/as_mlp_tiny_cascade_mask_rcnn_1x_coco',
    'upernet': 'segmentation/as_mlp_tiny_upernet_ade20k-512x512',
}
TINY = dict(depths=(2, 2, 6, 2), dims=(96, 192, 384, 768))


def conv_bn(shapes: Shapes, name: str, *shape: int) -> None:
    """Add mmcv's ConvModule with a BatchNorm, and therefore without a bias."""
    shapes.layer(f'{name}.conv', *shape, bias=False)
    shapes.batch_norm(f'{name}.bn', shape[0])


def backbone_shapes(arch: dict) -> Shapes:
    return Shapes(prefixed('backbone.', reference_of(mlp_dense.ASMLP).official_shapes(arch, norms=(0, 1, 2, 3))))


def detector_shapes(arch: dict, architecture: str, width: int, hidden: int) -> Shapes:
    shapes = backbone_shapes(arch)
    for i, dim in enumerate(arch['dims']):
        shapes.layer(f'neck.lateral_convs.{i}.conv', width, dim, 1, 1)
        shapes.layer(f'neck.fpn_convs.{i}.conv', width, width, 3, 3)
    shapes.layer('rpn_head.rpn_conv', width, width, 3, 3)
    shapes.layer('rpn_head.rpn_cls', 3, width, 1, 1)
    shapes.layer('rpn_head.rpn_reg', 12, width, 1, 1)
    for stage in ('.0', '.1', '.2') if architecture == 'cascade_mask_rcnn' else ('',):
        box, mask = f'roi_head.bbox_head{stage}', f'roi_head.mask_head{stage}'
        if stage:
            for i in range(4):
                conv_bn(shapes, f'{box}.shared_convs.{i}', width, width, 3, 3)
        else:
            shapes.layer(f'{box}.shared_fcs.1', hidden, hidden)
        shapes.layer(f'{box}.shared_fcs.0', hidden, 49 * width)
        shapes.layer(f'{box}.fc_cls', 81, hidden)
        shapes.layer(f'{box}.fc_reg', 320, hidden)
        for i in range(4):
            shapes.layer(f'{mask}.convs.{i}.conv', width, width, 3, 3)
        shapes.layer(f'{mask}.upsample', width, width, 2, 2)
        shapes.layer(f'{mask}.conv_logits', 80, width, 1, 1)
    return shapes


def segmentor_shapes(arch: dict, width: int, auxiliary: int) -> Shapes:
    shapes, dims = backbone_shapes(arch), arch['dims']
    for i in range(4):
        conv_bn(shapes, f'decode_head.psp_modules.{i}.1', width, dims[3], 1, 1)
    conv_bn(shapes, 'decode_head.bottleneck', width, dims[3] + 4 * width, 3, 3)
    for i in range(3):
        conv_bn(shapes, f'decode_head.lateral_convs.{i}', width, dims[i], 1, 1)
        conv_bn(shapes, f'decode_head.fpn_convs.{i}', width, width, 3, 3)
    conv_bn(shapes, 'decode_head.fpn_bottleneck', width, 4 * width, 3, 3)
    shapes.layer('decode_head.conv_seg', 150, width, 1, 1)
    conv_bn(shapes, 'auxiliary_head.convs.0', auxiliary, dims[2], 3, 3)
    shapes.layer('auxiliary_head.conv_seg', 150, auxiliary, 1, 1)
    return shapes


def shapes_of(architecture: str, arch: dict, width: int, hidden: int) -> Shapes:
    if architecture == 'upernet':
        return segmentor_shapes(arch, width, hidden)
    return detector_shapes(arch, architecture, width, hidden)


def read(architecture: str, thinned: bool = False) -> Config:
    cfg = Config.fromfile(config(CONFIGS[architecture]))
    if thinned:
        thin(cfg)
    return cfg


@pytest.fixture(params=CONFIGS)
def architecture(request) -> str:
    return request.param


@pytest.fixture
def published(architecture, save):
    """Return (path, weights) of a file as these versions and apex write it."""
    shapes = shapes_of(architecture, SMALL, 16, 16)
    weights = reference_of(mlp_dense.ASMLP).official_weights(shapes, std=0.1, dtype=torch.float32)
    classes = tuple(f'class {i}' for i in range(150 if architecture == 'upernet' else 80))
    meta = dict(mmdet_version='2.11.0', mmcv_version='1.3.0', config='model = dict()', seed=None, epoch=12, iter=87960)
    meta |= dict(CLASSES=classes, PALETTE=[[i, i, i] for i in range(150)] if architecture == 'upernet' else None)
    optimizer = dict(state={0: dict(step=1, exp_avg=torch.ones(2))}, param_groups=[dict(lr=1e-4, params=[0])])
    amp = dict(loss_scaler0=dict(loss_scale=65536.0, unskipped=1))
    return save(dict(meta=meta, state_dict=weights, optimizer=optimizer, amp=amp)), weights


def test_names_and_shapes_equal_those_of_the_config(architecture):
    with torch.device('meta'):
        shapes = shapes_of(architecture, TINY, *((512, 256) if architecture == 'upernet' else (256, 1024)))
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    report = compare_with_model(read(architecture), Checkpoint('file', None, weights))
    assert report == f'loads: {len(weights)} tensors'


def test_every_tensor_is_loaded_into_its_module(architecture, published):
    path, weights = published
    model = mlp_dense.load_model(read(architecture, thinned=True), path, 'cpu')
    loaded = model.state_dict()
    heads = {name: tensor for name, tensor in weights.items() if not name.startswith('backbone.')}
    assert len(loaded) == len(weights) and all(torch.equal(loaded[name], heads[name]) for name in heads)
    if architecture == 'upernet':
        assert model.dataset_meta['palette'][7] == (7, 7, 7)
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    assert model.dataset_meta['classes'][2] == 'class 2'
    backbone = {name.removeprefix('backbone.'): t.double() for name, t in weights.items() if name not in heads}
    assert_computes(model.backbone, backbone)
