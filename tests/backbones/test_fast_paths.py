"""What is computed faster on a CPU gives the numbers of the plain operators."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from mlp_dense import CycleMLP, HireMLP
from mlp_dense.backbones import fast_paths
from mlp_dense.backbones.as_mlp import axial_shift
from mlp_dense.backbones.cycle_mlp import cycle_shift
from mlp_dense.backbones.fast_paths import linear
from mlp_dense.backbones.hire_mlp import cyclic_window
from mlp_dense.backbones.layers import ChannelMLP, ChannelShift, Pointwise
from support.models import SMALL, loss_of, picture

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


@pytest.mark.parametrize('size', SIZES[:3])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('frozen', [(), ('stem',), ('fc1.weight', 'fc2.bias'), ('fc1', 'proj', 'norm')], ids=str)
def test_training(family, size, dtype, frozen, two_threads):
    torch.manual_seed(0)
    model, x = family(SMALL), picture(2, 3, *size)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(part in name for part in frozen))

    def gradients(of, picture):
        of.zero_grad()
        picture = picture.clone().requires_grad_('stem' not in frozen)
        loss_of(of(picture)).backward()
        found = [picture, *of.parameters()]
        return [None if each.grad is None else each.grad.double() for each in found]

    exact = gradients(copy.deepcopy(model).double(), x.double())
    model, x = model.to(dtype), x.to(dtype)
    fast, plain = gradients(model, x), without_onednn(lambda: gradients(model, x))
    for a, b, c in zip(fast, plain, exact, strict=True):
        assert (a is None) == (b is None) == (c is None)
        if c is not None and c.abs().max() > 1e-9:  # of a bias before a BatchNorm there is only rounding
            allowed = 1e-3 if dtype == torch.float32 else 3 * (b - c).abs().max() / c.abs().max() + 1e-2
            assert (a - c).abs().max() <= allowed * c.abs().max() + 1e-6


def test_a_hooked_or_wrapped_layer_is_called(two_threads):
    mlp, calls = ChannelMLP(4, 8), []
    x = picture(2, 5, 5, 4)
    expected = mlp(x)
    mlp.fc1.register_forward_hook(lambda *_: calls.append('fc1'))
    torch.testing.assert_close(mlp(x), expected)
    assert calls == ['fc1']

    class Doubled(nn.Module):  # as LoRA wraps a layer
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return 2 * self.layer(x)

    mlp.fc2 = Doubled(mlp.fc2)
    torch.testing.assert_close(mlp(x), 2 * expected)


OPERATORS = {
    'linear': lambda x: (x.permute(0, 2, 3, 1), torch.rand(5, 6), torch.rand(5), 'gelu'),
    'depthwise': lambda x: (x, torch.rand(6, 1, 1, 5)),
    'group_norm': lambda x: (x, 1, torch.rand(6), torch.rand(6), 1e-5),
}


@pytest.mark.parametrize('name', OPERATORS)
def test_operators_for_torch_compile(name):
    x = picture(2, 6, 7, 9).contiguous(memory_format=torch.channels_last)
    torch.library.opcheck(getattr(torch.ops.mlp_dense, name).default, OPERATORS[name](x))


@pytest.mark.slow
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)  # float64 takes the operators of a GPU
def test_compiled_code_holds_for_all_sizes(family, dtype):
    torch._dynamo.reset()
    model = family(dict(depths=(1, 1, 2, 1), dims=(4, 8, 12, 16))).eval().to(dtype)
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    with torch.inference_mode():
        for size in ((2, 3, 64, 96), (3, 3, 96, 128)):  # the second makes all sizes dynamic
            compiled(picture(*size).to(dtype))
        with torch.compiler.set_stance('fail_on_recompile'):
            for size in ((4, 3, 128, 160), (2, 3, 160, 96), (2, 3, 101, 150)):
                x = picture(*size).to(dtype)
                torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_inductor_infers(family):
    torch._dynamo.reset()
    model, x = family(dict(depths=(1,), dims=(8,)), out_indices=(0,)).eval(), picture(1, 3, 32, 48)
    compiled = torch.compile(model, fullgraph=True, dynamic=False)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_inductor_infers_for_all_sizes():
    torch._dynamo.reset()
    model = HireMLP(dict(depths=(1, 1), dims=(4, 8)), out_indices=(0, 1)).eval().double()
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    with torch.inference_mode():
        for size in ((3, 3, 96, 128), (2, 3, 101, 150)):
            x = picture(*size).double()
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(('family', 'dtype'), [(HireMLP, torch.float64), (CycleMLP, torch.float32)])
def test_inductor_trains(family, dtype, two_threads):
    torch._dynamo.reset()
    model = family(dict(depths=(1, 2), dims=(16, 32)), out_indices=(0, 1)).to(dtype)
    x = picture(2, 3, 101, 150).to(dtype)
    compiled = torch.compile(model, fullgraph=True, dynamic=False)

    def gradients(of):
        model.zero_grad()
        loss_of(of(x)).backward()
        return [parameter.grad for parameter in model.parameters()]

    tolerance = 1e-6 if dtype == torch.float64 else 1e-3
    for a, b in zip(gradients(compiled), gradients(model), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('axis', [1, 2])
@pytest.mark.parametrize(
    ('rows', 'period', 'start', 'length'), [(7, 7, -2, 9), (9, 7, 2, 7), (2, 2, 1, 9), (6, 6, 0, 6)]
)
def test_gradients_of_a_cyclic_window(axis, rows, period, start, length):
    x = picture(2, rows, rows, 3).double().requires_grad_()
    window = cyclic_window(x, period, start, length, axis)
    expected = x.index_select(axis, torch.arange(start, start + length) % period)
    gradient = torch.rand_like(expected)
    assert torch.equal(window, expected)
    torch.testing.assert_close(*(torch.autograd.grad(each, x, gradient)[0] for each in (window, expected)))


@pytest.mark.parametrize('axis', [1, 2])
@pytest.mark.parametrize('dim', [7, 12, 20])
@pytest.mark.parametrize('shape', [(1, 1), (2, 9), (9, 2), (16, 5)])
def test_shifts_are_the_same_bits(axis, dim, shape):
    x = picture(2, *shape, dim)
    shifts = [(cycle_shift, 1), *((partial(axial_shift, size), size // 2) for size in (1, 3, 5, 7))]
    for shift, reach in shifts:
        for each in (x, x.transpose(1, 2).contiguous().transpose(1, 2), x.bfloat16()):
            assert fast_paths.applies(each)
            assert torch.equal(ChannelShift(dim, axis, shift, reach)(each), shift(each, axis))


@pytest.mark.parametrize('activation', ['none', 'gelu', 'relu'])
@pytest.mark.parametrize('bias', [True, False])
def test_pointwise(activation, bias):
    x, layer = picture(2, 5, 7, 12), torch.nn.Linear(12, 9, bias)
    with torch.no_grad():
        fast = linear(x, layer.weight, layer.bias, activation)
    plain = linear(x, layer.weight, layer.bias, activation)  # with a gradient
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
    layer = Pointwise(6, 4)
    layer.weight.requires_grad_(False)
    layer(picture(2, 3, 3, 6)).sum().backward()
    assert layer.bias.grad is not None


def test_torch_func_gives_the_gradients_of_autograd(family, two_threads):
    model, x = family(SMALL).eval(), picture(2, 3, 33, 47)
    parameters = dict(model.named_parameters())

    def loss(parameters):
        return loss_of(torch.func.functional_call(model, parameters, (x,)))

    gradients = torch.func.grad(loss)(parameters)
    expected = torch.autograd.grad(loss(parameters), parameters.values())
    torch.testing.assert_close(tuple(gradients.values()), expected, rtol=1e-3, atol=1e-3)
