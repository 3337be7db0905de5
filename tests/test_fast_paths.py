"""What is computed faster on a CPU gives the numbers of the plain operators."""

from functools import partial

import pytest
import torch
from conftest import SMALL, loss_of, picture

from mlp_dense.backbones import onednn
from mlp_dense.backbones.as_mlp import axial_shift
from mlp_dense.backbones.cycle_mlp import cycle_shift
from mlp_dense.backbones.layers import ChannelShift, pointwise

SIZES = [(64, 64), (50, 75), (7, 90), (3, 1), (1, 1)]

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason='PyTorch is built without oneDNN')


def without_onednn(run):
    with torch.backends.mkldnn.flags(enabled=False):
        return run()


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_inference(family, size, dtype):
    torch.manual_seed(0)
    model, x = family(SMALL).eval(), picture(2, 3, *size)
    with torch.no_grad():
        exact = model.double()(x.double())
    model, x = model.to(dtype), x.to(dtype)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            fast, plain = model(x), without_onednn(lambda: model(x))
        for a, b, c in zip(fast, plain, exact, strict=True):
            allowed = 1e-5 * c.abs().max() if dtype == torch.float32 else 2 * (b - c).abs().max() + 1e-2
            assert (a - c).abs().max() <= allowed


def test_training(family):
    torch.manual_seed(0)
    model, x = family(SMALL), picture(2, 3, 50, 75)

    def gradients():
        model.zero_grad()
        loss_of(model(x)).backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    torch.testing.assert_close(gradients(), without_onednn(gradients), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('axis', [2, 3])
@pytest.mark.parametrize('dim', [7, 12, 20])
@pytest.mark.parametrize('shape', [(1, 1), (2, 9), (9, 2), (16, 5)])
def test_shifts_are_the_same_bits(axis, dim, shape):
    x = picture(2, dim, *shape)
    for shifts, plain in (
        ([1 - (i + 1) % 3 for i in range(dim)], cycle_shift),
        *(
            ([i // -(-dim // size) - size // 2 for i in range(dim)], partial(axial_shift, size))
            for size in (1, 3, 5, 7)
        ),
    ):
        for each in (x, x.contiguous(memory_format=torch.channels_last), x.bfloat16()):
            assert onednn.takes(each)
            assert torch.equal(ChannelShift(shifts, axis, plain)(each), plain(each, axis))


@pytest.mark.parametrize('activation', ['none', 'gelu', 'relu'])
@pytest.mark.parametrize('bias', [True, False])
def test_pointwise(activation, bias):
    x, layer = picture(2, 12, 5, 7), torch.nn.Linear(12, 9, bias)
    with torch.no_grad():
        fast = pointwise(x, layer.weight, layer.bias, activation)
    plain = pointwise(x, layer.weight, layer.bias, activation)  # with a gradient
    assert plain.requires_grad and not fast.requires_grad
    torch.testing.assert_close(fast, plain.detach(), rtol=1e-5, atol=1e-6)


def test_tracing_sees_plain_operators(family):
    x = picture(1, 3, 64, 64)
    with torch.no_grad():
        graph = torch.jit.trace(family(SMALL).eval(), x, check_trace=False).inlined_graph
    assert not any(node.kind().startswith('mkldnn::') for node in graph.nodes())


def test_the_picture_and_the_weights_are_not_written_to(family):
    model = family(SMALL).eval()
    x = picture(1, 3, 40, 56)
    before = [x.clone(), *(tensor.clone() for tensor in model.state_dict().values())]
    with torch.inference_mode():
        model(x)
    assert all(torch.equal(a, b) for a, b in zip(before, [x, *model.state_dict().values()], strict=True))


def test_a_bias_alone_is_trained():
    layer = torch.nn.Linear(6, 4)
    layer.weight.requires_grad_(False)
    pointwise(picture(2, 6, 3, 3), layer.weight, layer.bias).sum().backward()
    assert layer.bias.grad is not None
