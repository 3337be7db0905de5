"""The fused copy of a model predicts what the model predicts."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mlp_dense import HireMLP, fuse
from mlp_dense.backbones.layers import DropPath
from support.configs import DETECTION, SEGMENTATION, config
from support.models import SMALL, image


def with_random_statistics(model: nn.Module) -> nn.Module:
    """Draw norms and biases, whose initial values would hide missing folding."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
        if isinstance(module, _BatchNorm) and module.weight is not None:
            nn.init.uniform_(module.weight, 0.5, 2)
        if getattr(module, 'bias', None) is not None:
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model.eval()


def assert_same_outputs(fused, outs) -> None:
    for a, b in zip(fused, outs, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


@pytest.mark.parametrize('size', [(64, 96), (50, 75), (33, 1)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_backbone(family, size, dtype):
    model = with_random_statistics(family(SMALL, drop_path_rate=0.3)).to(dtype)
    x = image(2, 3, *size).to(dtype)
    fused = fuse(model)
    assert any(isinstance(m, DropPath) for m in model.modules())
    assert not any(isinstance(m, DropPath) for m in fused.modules())
    assert not fused.training and not any(p.requires_grad for p in fused.parameters())
    with torch.no_grad():
        assert_same_outputs(fused(x), model(x))


def test_only_the_output_norms_of_hire_mlp_are_left():
    model = HireMLP(SMALL)
    fused = fuse(model)
    left = [name for name, module in fused.named_modules() if isinstance(module, _BatchNorm)]
    assert left == [f'norms.{i}' for i in range(len(model.norms))]
    assert sum(isinstance(m, _BatchNorm) for m in model.modules()) > 20  # the model stays as it was


def test_model_does_not_change():
    model = with_random_statistics(HireMLP(SMALL)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fuse(model)
    after = model.state_dict()
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert list(before) == list(after) and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    'norm_cfg',
    [dict(type='BN', affine=False), dict(type='BN', track_running_stats=False), dict(type='SyncBN')],
    ids=str,
)
def test_norm_types(norm_cfg):
    model = with_random_statistics(HireMLP(SMALL, norm_cfg=norm_cfg))
    x = image(2, 3, 64, 64)
    with torch.no_grad():
        assert_same_outputs(fuse(model)(x), model(x))


def test_fusing_twice_equals_fusing_once(family):
    fused = fuse(with_random_statistics(family(SMALL)))
    x = image(1, 3, 64, 64)
    with torch.no_grad():
        assert_same_outputs(fuse(fused)(x), fused(x))


@pytest.mark.slow
@pytest.mark.parametrize(
    'path', [DETECTION, SEGMENTATION, config('detection/cycle_mlp_mask_rcnn_coco')], ids=lambda path: Path(path).stem
)
def test_complete_models(path):
    cfg = Config.fromfile(path)
    from mmengine.registry import init_default_scope

    init_default_scope(cfg.default_scope)
    model = with_random_statistics(MODELS.build(cfg.model))
    fused = fuse(model)
    assert getattr(fused, 'auxiliary_head', None) is None
    x = image(1, 3, 64, 96)
    with torch.no_grad():
        outs, same = model.extract_feat(x), fused.extract_feat(x)
        assert_same_outputs(same, outs)
        if 'decode_head' in cfg.model:
            norms = [name for name, module in fused.decode_head.named_modules() if isinstance(module, _BatchNorm)]
            assert norms == []
            assert_same_outputs([fused.decode_head(same)], [model.decode_head(outs)])


def test_a_convolution_shared_among_norms_is_left_alone():
    from mmcv.cnn import ConvModule

    heads = nn.ModuleList(ConvModule(4, 4, 1, norm_cfg=dict(type='BN')) for _ in range(2))
    heads[1].conv = heads[0].conv  # as in mmdet's RetinaSepBNHead
    with_random_statistics(heads)
    x = image(2, 4, 5, 5)
    for head, fused in zip(heads, fuse(heads), strict=True):
        torch.testing.assert_close(fused(x), head(x))
