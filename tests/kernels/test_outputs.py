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
def test_tiles_are_normalized_like_the_complete_map(monkeypatch, name, shape):
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
        outputs = nchw_output(x, norm)
    assert outputs.is_contiguous()
    torch.testing.assert_close(outputs, expected)


@pytest.mark.parametrize('shape', [(2, 6, 5, 7), (1, 256, 3, 4), (2, 300, 16, 16), (1, 1, 1, 1)], ids=str)
def test_training_copies_and_returns_gradients_in_channels_last(monkeypatch, shape):
    monkeypatch.setattr(onednn, 'TILE', 2000)
    x = image(*shape).contiguous(memory_format=torch.channels_last).requires_grad_()
    source = x * 1  # hooks of a leaf would receive accumulated gradients
    seen = []
    source.register_hook(seen.append)
    outer = image(*shape).requires_grad_()
    out = nchw_output(source, nn.Identity())
    assert out.is_contiguous() and torch.equal(out, x)
    (gradient,) = torch.autograd.grad(out, x, outer, create_graph=True)
    assert torch.equal(gradient, outer) and seen[0].is_contiguous(memory_format=torch.channels_last)
    (second,) = torch.autograd.grad(gradient, outer, torch.ones_like(gradient))
    assert torch.equal(second, torch.ones_like(gradient))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize('width', [3, 32, 256])
def test_cropped_maps_are_copied_to_contiguous_memory(dtype, width):
    x = image(2, 256, 9, width + 2).to(dtype).contiguous(memory_format=torch.channels_last)[..., :8, :width]
    with torch.inference_mode():
        outputs = nchw_output(x, nn.Identity())
    assert outputs.is_contiguous() and torch.equal(outputs, x)


def test_hooked_norm_receives_the_complete_map(monkeypatch):
    monkeypatch.setattr(onednn, 'TILE', 100)
    norm, shapes = ChannelLayerNorm(6), []
    norm.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape))
    with torch.inference_mode():
        nchw_output(image(2, 6, 20, 20), norm)
    assert shapes == [(2, 6, 20, 20)]


def test_trained_norm_gets_its_gradient():
    norm = ChannelLayerNorm(6)
    nchw_output(image(2, 6, 5, 5), norm).square().sum().backward()
    assert norm.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('frozen', [(), ('x',), ('weight',), ('bias',), ('x', 'bias')], ids=str)
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last], ids=str)
def test_gradients_of_a_transposed_convolution(two_threads, frozen, layout):
    inputs = dict(x=image(2, 5, 3, 4).contiguous(memory_format=layout), weight=image(5, 6, 2, 2), bias=image(6))
    tensors = {name: tensor.requires_grad_(name not in frozen) for name, tensor in inputs.items()}
    trained = [tensor for tensor in tensors.values() if tensor.requires_grad]
    out = upsample(**tensors)
    node = out.grad_fn
    while 'TrainedLinear' not in node.name():  # fails at the end of the graph, or behind another convolution
        node = node.next_functions[0][0]
    expected = nn.functional.conv_transpose2d(*tensors.values(), stride=2)
    torch.testing.assert_close(out, expected)
    outer = image(*out.shape)
    for create_graph in (False, True):
        gradients = (torch.autograd.grad(y, trained, outer, True, create_graph) for y in (out, expected))
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)
