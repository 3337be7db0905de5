"""Counts of parameters and MACs."""

import pytest
import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from torch import nn

import mlp_dense
from mlp_dense.errors import UserError
from mlp_dense.reports.complexity import complexity, count_macs
from support.configs import DETECTION, SEGMENTATION


@pytest.mark.parametrize('config', [DETECTION, SEGMENTATION])
def test_macs_equal_the_count_of_mmengine(config):
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    backbone = mlp_dense.HireMLP(**{key: value for key, value in cfg.model.backbone.items() if key != 'type'}).eval()
    counted = FlopAnalyzer(backbone, torch.zeros(1, 3, 96, 160))
    operators = counted.unsupported_ops_warnings(False).by_operator()
    products = sum(operators[key] for key in ('conv', 'linear', 'matmul', 'addmm') if key in operators)
    assert complexity(cfg.model, 96, 160).backbone_macs == products


def test_macs_of_convolution_and_linear_layer_equal_a_manual_count():
    init_default_scope('mmseg')
    backbone = dict(type='mlp_dense.CycleMLP', arch=dict(depths=(1,), dims=(12,)), out_indices=(0,))
    head = dict(type='FCNHead', in_channels=12, channels=8, num_convs=1, num_classes=5, kernel_size=1)
    head |= dict(concat_input=False, in_index=0)
    counts = complexity(ConfigDict(type='EncoderDecoder', backbone=backbone, decode_head=head), 32, 64)
    pixels = 8 * 16
    block = pixels * (4 * 12 * 12 + 2 * 12 * 48) + 12 * 3 + 3 * 36
    assert counts.backbone_macs == pixels * 3 * 49 * 12 + block
    assert counts.macs == counts.backbone_macs + pixels * (12 * 8 + 8 * 5)


def test_unknown_operator_raises_an_error():
    x, linear = torch.ones(2, 3), nn.Linear(3, 5)
    assert count_macs(lambda: linear(x)) == 30
    with pytest.raises(UserError, match=r'cdist'):
        count_macs(lambda: torch.cdist(x, x))
