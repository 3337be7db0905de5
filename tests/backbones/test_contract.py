"""The contract of outputs and weights, for every registered arch or for a small one."""

import math

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mlp_dense.backbones.layers import DropPath
from reference import reference_of
from support.models import ARCHS, SMALL, image, loss_of


@pytest.fixture(scope='module', params=ARCHS, ids=lambda pair: f'{pair[0].__name__}-{pair[1]}')
def full(request):
    """Return a backbone of each registered arch with its initial weights, and at most three blocks in a stage."""
    cls, name = request.param
    arch = cls.archs[name]
    torch.manual_seed(0)
    return cls(dict(arch, depths=tuple(min(3, depth) for depth in arch['depths'])), drop_path_rate=0.3)


# Every registered arch


@pytest.mark.parametrize('height, width', [(64, 64), (33, 47)])
def test_outputs_are_what_the_attributes_say(full, height, width):
    x = image(2, 3, height, width)
    with torch.no_grad():
        outs = full.eval()(x)
    assert isinstance(outs, tuple)
    assert full.out_channels == tuple(full.arch['dims']) == tuple(out.shape[1] for out in outs)
    reference = reference_of(type(full))
    assert full.out_strides == reference.strides
    sizes = list(zip(reference.map_sizes(height), reference.map_sizes(width), strict=True))
    assert [tuple(out.shape[2:]) for out in outs] == sizes
    if (height, width) == (64, 64):
        assert [64 // out.shape[2] for out in outs] == list(full.out_strides)
    assert all(out.shape[0] == 2 and out.is_contiguous() and out.isfinite().all() for out in outs)


def test_drop_path_rises_linearly_over_all_blocks(full):
    rates = [layer.rate for layer in full.modules() if isinstance(layer, DropPath)]
    n = sum(full.arch['depths'])
    assert rates == pytest.approx([0.3 * b / (n - 1) for b in range(n)])


def test_initial_weights_are_those_of_the_official_code(full):
    for name, layer in full.named_modules():
        if isinstance(layer, (nn.GroupNorm, nn.LayerNorm, _BatchNorm)):
            assert (layer.weight == 1).all() and (layer.bias == 0).all(), name
        elif isinstance(layer, (nn.Linear, nn.Conv2d)):
            weight, bound = layer.weight, 1 / math.sqrt(layer.weight[0].numel())
            if drawn := reference_of(type(full)).drawn_by_paper(layer):
                expected_std, limit = drawn.std, drawn.limit
                assert layer.bias is None or layer.bias.abs().max() <= drawn.bias, name
            else:  # PyTorch's default: uniform within the bound
                expected_std, limit = bound / math.sqrt(3), bound
                assert layer.bias is None or (0.5 * bound < layer.bias.abs().max() <= bound), name
            assert weight.std().item() == pytest.approx(expected_std, rel=5 / math.sqrt(weight.numel())), name
            assert 0.8 * min(limit, 3 * expected_std) < weight.abs().max() <= limit, name


# Choice of outputs


@pytest.mark.parametrize('out_norm', [True, False])
@pytest.mark.parametrize('out_indices', [(0,), (3,), (1, 2, 3), [0, 2], (0, 1, 2, 3)])
def test_selected_outputs_and_no_unused_parameters(family, out_indices, out_norm):
    full = family(SMALL, drop_path_rate=0.5)
    model = family(SMALL, drop_path_rate=0.5, out_indices=out_indices, out_norm=out_norm)
    assert model.out_channels == tuple(SMALL['dims'][i] for i in out_indices)
    assert model.out_strides == tuple(reference_of(family).strides[i] for i in out_indices)
    loss_of(model.train()(image(4, 3, 64, 64))).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert set(model.state_dict()) <= set(full.state_dict())
    rates, full_rates = ([m.rate for m in net.modules() if isinstance(m, DropPath)] for net in (model, full))
    assert rates == full_rates[: len(rates)]
    assert any(name.startswith('norms.') for name in model.state_dict()) == out_norm

    model.load_state_dict(full.state_dict())
    x = image(1, 3, 64, 40)
    outs = model.eval()(x)
    assert len(outs) == len(out_indices)
    if out_norm:
        torch.testing.assert_close(outs, tuple(full.eval()(x)[i] for i in out_indices))


def test_output_norm_changes_only_its_own_output(family):
    model = family(SMALL).eval()
    x = image(1, 3, 64, 40)
    before = model(x)
    nn.init.constant_(model.norms[1].weight, 3.0)
    same = [torch.equal(out, old) for out, old in zip(model(x), before, strict=True)]
    assert same == [True, False, True, True]
