"""Output norms and the copy to contiguous memory, tile by tile for inference on a CPU."""

import pytest
import torch
from torch import nn

from mlp_dense.backbones.layers import ChannelLayerNorm, GroupNorm1
from mlp_dense.kernels import nchw_output, onednn, upsample
from support.models import image

NORMS = {
    'LN': lambda: ChannelLayerNorm(6),
    'BN': lambda: nn.BatchNorm2d(6),
    'BN of the batch': lambda: nn.BatchNorm2d(6, track_running_stats=False),
    'BN in training': lambda: nn.BatchNorm2d(6).train(),
    'GN1': lambda: GroupNorm1(6),
    'none': nn.Identity,
}


@pytest.mark.parametrize('name', NORMS)
@pytest.mark.parametrize('shape', [(2, 6, 5, 7), (1, 6, 1, 1), (3, 6, 40, 3)], ids=str)
def test_parts_are_normalized_as_the_whole(monkeypatch, name, shape):
    monkeypatch.setattr(onednn, 'TILE', 100)
    norm = NORMS[name]()
    norm.train(name == 'BN in training')
    for tensor in (*norm.parameters(), getattr(norm, 'running_mean', None), getattr(norm, 'running_var', None)):
        if tensor is not None:
            nn.init.uniform_(tensor, 0.5, 2)
    x = image(*shape).contiguous(memory_format=torch.channels_last)
    if name.startswith('BN') and shape[2:] == (1, 1):
        x = x.expand(2, -1, -1, -1)
    expected = norm(x)
    with torch.no_grad():
        found = nchw_output(x, norm)
    assert found.is_contiguous()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('shape', [(2, 6, 5, 7), (1, 256, 3, 4), (2, 300, 16, 16), (1, 1, 1, 1)], ids=str)
def test_what_is_trained_is_turned_round_and_back(monkeypatch, shape):
    monkeypatch.setattr(onednn, 'TILE', 2000)
    x = image(*shape).contiguous(memory_format=torch.channels_last).requires_grad_()
    given = x * 1  # hooks of a leaf would see what is accumulated
    seen = []
    given.register_hook(seen.append)
    outer = image(*shape).requires_grad_()
    out = nchw_output(given, nn.Identity())
    assert out.is_contiguous() and torch.equal(out, x)
    (found,) = torch.autograd.grad(out, x, outer, create_graph=True)
    assert torch.equal(found, outer) and seen[0].is_contiguous(memory_format=torch.channels_last)
    (second,) = torch.autograd.grad(found, outer, torch.ones_like(found))
    assert torch.equal(second, torch.ones_like(found))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize('width', [3, 32, 256])
def test_the_memory_of_a_map_that_was_cut_off(dtype, width):
    x = image(2, 256, 9, width + 2).to(dtype).contiguous(memory_format=torch.channels_last)[..., :8, :width]
    with torch.inference_mode():
        found = nchw_output(x, nn.Identity())
    assert found.is_contiguous() and torch.equal(found, x)


def test_a_hook_of_a_norm_sees_the_whole_map(monkeypatch):
    monkeypatch.setattr(onednn, 'TILE', 100)
    norm, seen = ChannelLayerNorm(6), []
    norm.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    with torch.inference_mode():
        nchw_output(image(2, 6, 20, 20), norm)
    assert seen == [(2, 6, 20, 20)]


def test_a_norm_that_is_trained_gets_its_gradient():
    norm = ChannelLayerNorm(6)
    nchw_output(image(2, 6, 5, 5), norm).square().sum().backward()
    assert norm.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('frozen', [(), ('x',), ('weight',), ('bias',), ('x', 'bias')], ids=str)
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last], ids=str)
def test_gradients_of_a_transposed_convolution(two_threads, frozen, layout):
    given = dict(x=image(2, 5, 3, 4).contiguous(memory_format=layout), weight=image(5, 6, 2, 2), bias=image(6))
    tensors = {name: tensor.requires_grad_(name not in frozen) for name, tensor in given.items()}
    trained = [tensor for tensor in tensors.values() if tensor.requires_grad]
    out = upsample(**tensors)
    assert 'TrainedUpsample' in type(out.grad_fn).__name__
    expected = nn.functional.conv_transpose2d(*tensors.values(), stride=2)
    torch.testing.assert_close(out, expected)
    outer = image(*out.shape)
    for create_graph in (False, True):
        found, wanted = (torch.autograd.grad(y, trained, outer, True, create_graph) for y in (out, expected))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
