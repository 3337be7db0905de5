"""A model whose layers need missing operators of mmcv is refused before it runs."""

from types import SimpleNamespace

import pytest
from mmcv.ops import CARAFEPack, DeformRoIPoolPack, MaskedConv2d, ModulatedDeformConv2dPack, PSAMask, RoIAlign, RoIPool
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

import mlp_dense.operators
from mlp_dense import load_model
from mlp_dense.checks.missing_operators import check_operators
from mlp_dense.config.config_file import read_config
from mlp_dense.errors import UserError
from mlp_dense.training.runner import DenseRunner
from support.configs import DETECTION

SENTENCE = 'is DeformRoIPoolPack of mmcv: deform_roi_pool_forward is an operator .* It needs a GPU also in mmcv'


@pytest.fixture(autouse=True)
def without_compiled():
    if mlp_dense.operators.running() == 'compiled':
        pytest.skip("mmcv's operators are compiled")


def test_layers_with_fallbacks_are_accepted():
    layers = CARAFEPack(8, 2), MaskedConv2d(1, 1, 1), ModulatedDeformConv2dPack(1, 1, 3), PSAMask('collect', 3)
    check_operators(nn.Sequential(*layers, RoIAlign(7, pool_mode='max'), RoIPool(7)))


def test_models_with_missing_operators_are_not_loaded():
    cfg = read_config(DETECTION)
    cfg.model.roi_head.bbox_roi_extractor.roi_layer = dict(
        type='DeformRoIPoolPack', output_size=7, output_channels=cfg.model.roi_head.bbox_roi_extractor.out_channels
    )
    with pytest.raises(UserError, match=rf'^model\.roi_head\.bbox_roi_extractor\.roi_layers\.0 {SENTENCE}'):
        load_model(cfg, None, 'cpu')


def test_runner_checks_the_operators_of_its_model(monkeypatch):
    model = nn.Sequential(DeformRoIPoolPack(7, 4))
    monkeypatch.setattr(Runner, 'from_cfg', classmethod(lambda cls, cfg: SimpleNamespace(model=model)))
    with pytest.raises(UserError, match=rf'^model\.0 {SENTENCE}'):
        DenseRunner.from_cfg(Config(dict()))


def test_installation_without_sources_is_not_checked(monkeypatch):
    class Align(RoIAlign):
        """A class of its own, which is not in the cache."""

    def getsource(module):
        raise OSError

    monkeypatch.setattr('inspect.getsource', getsource)
    check_operators(Align(7))
