"""What is computed faster on a CPU gives the numbers of the plain operators."""

import copy
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from mlp_dense import ASMLP
from mlp_dense.backbones import FAMILIES, fast_paths
from mlp_dense.backbones.as_mlp import axial_shift
from mlp_dense.backbones.cycle_mlp import cycle_shift
from mlp_dense.backbones.experts import Experts
from mlp_dense.backbones.hire_mlp import cyclic_window
from mlp_dense.backbones.layers import ChannelMLP, ChannelShift, Pointwise, in_nchw
from mlp_dense.backbones.vip_paths import AlongAxis
from mlp_dense.backbones.wave_mlp import WaveAlong, waves
from support.models import SMALL, image, loss_of, official

SIZES = [(64, 64), (50, 75), (7, 90), (3, 1), (1, 1)]
BF16 = pytest.param(
    torch.bfloat16,
    marks=pytest.mark.skipif(
        not fast_paths.applies(torch.ones(1, dtype=torch.bfloat16)),
        reason='oneDNN has no bf16 on this CPU',
    ),
)

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason='PyTorch is built without oneDNN')


def built(family: type) -> nn.Module:
    """With weights and statistics of which each matters."""
    model = family(SMALL).eval()
    model.load_state_dict(official(family))
    return model


def without_onednn(run):
    with torch.backends.mkldnn.flags(enabled=False):
        return run()


def choose_all_experts(model: nn.Module, dtype: torch.dtype) -> None:
    """Where a type rounds: another rounding would choose other experts."""
    for module in model.modules() if dtype == torch.bfloat16 else ():
        if isinstance(module, Experts):
            module.num_chosen = len(module.shares)


def compare_inference(model: nn.Module, x: Tensor, dtype: torch.dtype) -> None:
    """Raises AssertionError where the fast paths differ from float64 by more than rounding."""
    choose_all_experts(model, dtype)
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(x.double())
    model, x = model.to(dtype), x.to(dtype)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            fast, plain = model(x), without_onednn(lambda: model(x))
        for a, b, c in zip(fast, plain, exact, strict=True):
            allowed = 1e-5 * c.abs().max() if dtype == torch.float32 else 2 * (b - c).abs().max() + 1e-2
            assert (a - c).abs().max() <= allowed


def compare_training(model: nn.Module, x: Tensor, dtype: torch.dtype, of_image: bool = True) -> None:
    """The same for the gradients of the parameters and, where asked for, of the image."""
    choose_all_experts(model, dtype)

    def gradients(model: nn.Module, x: Tensor) -> list[Tensor | None]:
        torch.manual_seed(0)  # of the noise of a router
        model.zero_grad()
        x = x.clone().requires_grad_(of_image)
        loss_of(model(x)).backward()
        return [None if each.grad is None else each.grad.double() for each in [x, *model.parameters()]]

    exact = gradients(copy.deepcopy(model).double(), x.double())
    model, x = model.to(dtype), x.to(dtype)
    fast, plain = gradients(model, x), without_onednn(lambda: gradients(model, x))
    for a, b, c in zip(fast, plain, exact, strict=True):
        assert (a is None) == (b is None) == (c is None)
        if c is not None and c.abs().max() > 1e-9:  # of a bias before a BatchNorm there is only rounding
            allowed = 1e-3 if dtype == torch.float32 else 3 * (b - c).abs().max() / c.abs().max() + 1e-2
            assert (a - c).abs().max() <= allowed * c.abs().max() + 1e-6


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('dtype', [torch.float32, BF16])
def test_inference(family, size, dtype):
    compare_inference(built(family), image(2, 3, *size), dtype)


@pytest.mark.parametrize(
    ('size', 'frozen'),
    [
        *((size, ()) for size in SIZES[:3]),
        *((SIZES[1], frozen) for frozen in [('stem',), ('fc1.weight', 'fc2.bias'), ('fc1', 'proj', 'norm')]),
    ],
    ids=str,
)
@pytest.mark.parametrize('dtype', [torch.float32, BF16])
def test_training(family, size, dtype, frozen, two_threads):
    model = family(SMALL)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(part in name for part in frozen))
    compare_training(model, image(2, 3, *size), dtype, 'stem' not in frozen)


MUTANTS = {
    'no activation': (compare_inference, '_linear', lambda right, x, w, b, activation: right(x, w, b, 'none')),
    'no bias': (compare_inference, '_linear', lambda right, x, w, b, activation: right(x, w, None, activation)),
    'shift turned round': (compare_inference, 'depthwise', lambda right, x, kernel: right(x, kernel.flip(2, 3))),
    'norm without bias': (compare_inference, 'group_norm', lambda right, x, n, w, b, eps: right(x, n, w, None, eps)),
    'other eps': (compare_inference, 'group_norm', lambda right, x, n, w, b, eps: right(x, n, w, b, 1e-3)),
    'no bias in training': (compare_training, '_conv1x1', lambda right, x, w, b: right(x, w, None)),
    'gradient of GELU left out': (compare_training, '_gelu_backward', lambda right, gradient, x, grad_input: gradient),
    'other weights in backward': (
        compare_training,
        'conv1x1_backward',
        lambda right, gradient, x, w, needed: right(gradient, x, w.roll(1, 0), needed),
    ),
    'one channel shifted wrongly': (
        compare_training,
        'depthwise',
        lambda right, x, kernel: right(x, kernel.roll(1, 0)),
    ),
}


@pytest.mark.parametrize('mutant', MUTANTS)
def test_comparison_notices_a_wrong_fast_path(monkeypatch, two_threads, mutant):
    compare, name, wrong = MUTANTS[mutant]
    model, x = built(ASMLP), image(2, 3, 50, 75)  # the family that takes them all
    compare(model, x, torch.float32)
    monkeypatch.setattr(fast_paths, name, partial(wrong, getattr(fast_paths, name)))
    with pytest.raises(AssertionError):
        compare(model, x, torch.float32)


@pytest.mark.parametrize('training', [True, False])
def test_a_hooked_or_wrapped_layer_is_called(two_threads, training):
    mlp, calls = ChannelMLP(4, 8).requires_grad_(training), []
    x = image(2, 5, 5, 4)
    expected = mlp(x)
    with nn.modules.module.register_module_forward_hook(lambda module, *_: calls.append(module)):
        torch.testing.assert_close(mlp(x), expected)
    assert calls == [mlp.fc1, mlp.fc2, mlp]
    mlp.fc1.register_forward_hook(lambda *_: calls.append('fc1'))
    torch.testing.assert_close(mlp(x), expected)
    assert calls[3:] == ['fc1']

    class Doubled(nn.Module):  # as LoRA wraps a layer
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return 2 * self.layer(x)

    mlp.fc2 = Doubled(mlp.fc2)
    torch.testing.assert_close(mlp(x), 2 * expected)


@pytest.mark.parametrize('dim', [8, 5])  # of an odd number a pair holds a real and an imaginary part
def test_parts_of_a_wave_are_mixed_apart(dim):
    torch.manual_seed(0)
    along = WaveAlong(dim, 2, False, nn.BatchNorm2d).eval().requires_grad_(False)
    x, calls = image(2, 6, 9, dim), []
    expected = along.mix(waves(in_nchw(along.norm, along.phase(x)).relu(), along.amplitude(x)))
    assert along.mixes_apart(x) == (dim == 8)
    torch.testing.assert_close(along(x), expected)
    along.mix.register_forward_hook(lambda *_: calls.append('mix'))
    torch.testing.assert_close(along(x), expected)
    assert calls == ['mix']


WITHOUT_OPERATORS = """
import sys, types, torch
torch.ops.mkldnn = types.SimpleNamespace()  # as a release of PyTorch that renamed them
from mlp_dense.backbones import FAMILIES, fast_paths
assert not fast_paths.applies(torch.ones(1))
arch, x, wanted = torch.load(sys.argv[1])
torch.set_num_threads(2)
for family in FAMILIES:
    weights, outs, gradient = wanted[family.__name__]
    model = family(arch).eval()
    model.load_state_dict(weights)
    x.grad = None
    found = model(x)
    sum(out.sum() for out in found).backward()
    torch.testing.assert_close(found, outs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(x.grad, gradient, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(model(x), outs, rtol=1e-4, atol=1e-4)
"""


@pytest.mark.slow
def test_missing_private_operators_mean_the_plain_ones_and_one_log_line(save, two_threads):
    x, wanted = image(2, 3, 33, 47).requires_grad_(), {}
    for family in FAMILIES:
        model = built(family)
        x.grad = None
        outs = model(x)
        sum(out.sum() for out in outs).backward()
        outs = tuple(out.detach() for out in outs)
        wanted[family.__name__] = model.state_dict(), outs, x.grad.clone()
    path = save((SMALL, x, wanted))
    done = subprocess.run([sys.executable, '-c', WITHOUT_OPERATORS, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line for line in done.stderr.splitlines() if 'slower operators' in line] == [
        "On a CPU PyTorch's own, slower operators run: 'types.SimpleNamespace' object has no attribute "
        "'_linear_pointwise'."
    ]


@pytest.mark.parametrize('axis', [1, 2])
@pytest.mark.parametrize(
    ('rows', 'period', 'start', 'length'), [(7, 7, -2, 9), (9, 7, 2, 7), (2, 2, 1, 9), (6, 6, 0, 6)]
)
def test_gradients_of_a_cyclic_window(axis, rows, period, start, length):
    x = image(2, rows, rows, 3).double().requires_grad_()
    window = cyclic_window(x, period, start, length, axis)
    expected = x.index_select(axis, torch.arange(start, start + length) % period)
    gradient = torch.rand_like(expected)
    assert torch.equal(window, expected)
    torch.testing.assert_close(*(torch.autograd.grad(each, x, gradient)[0] for each in (window, expected)))


@pytest.mark.parametrize('axis', [1, 2])
@pytest.mark.parametrize('dim', [7, 12, 20])
@pytest.mark.parametrize('shape', [(1, 1), (2, 9), (9, 2), (16, 5)])
@pytest.mark.parametrize('dtype', [torch.float32, BF16])
def test_shifts_are_the_same_bits(axis, dim, shape, dtype):
    x = image(2, *shape, dim).to(dtype)
    shifts = [(cycle_shift, 1), *((partial(axial_shift, size), size // 2) for size in (1, 3, 5, 7))]
    for shift, reach in shifts:
        for each in (x, x.transpose(1, 2).contiguous().transpose(1, 2)):
            assert fast_paths.applies(each)
            assert torch.equal(ChannelShift(dim, axis, shift, reach)(each), shift(each, axis))


@pytest.mark.parametrize('activation', ['none', 'gelu', 'relu'])
@pytest.mark.parametrize('bias', [True, False])
def test_linear_map_with_an_activation(activation, bias):
    x, layer = image(2, 5, 7, 12), nn.Linear(12, 9, bias)
    with torch.no_grad():
        fast = fast_paths.linear(x, layer.weight, layer.bias, activation)
    plain = fast_paths.linear(x, layer.weight, layer.bias, activation)  # with a gradient
    assert plain.requires_grad and not fast.requires_grad
    torch.testing.assert_close(fast, plain.detach(), rtol=1e-5, atol=1e-6)


def test_a_bias_alone_is_trained():
    layer = Pointwise(6, 4)
    layer.weight.requires_grad_(False)
    layer(image(2, 3, 3, 6)).sum().backward()
    assert layer.bias.grad is not None


def test_torch_func_gives_the_gradients_of_autograd(small, two_threads):
    model, x = small.eval(), image(2, 3, 33, 47)
    parameters = dict(model.named_parameters())

    def loss(parameters):
        return loss_of(torch.func.functional_call(model, parameters, (x,)))

    gradients = torch.func.grad(loss)(parameters)
    expected = torch.autograd.grad(loss(parameters), parameters.values())
    torch.testing.assert_close(tuple(gradients.values()), expected, rtol=1e-3, atol=1e-3)


def test_gradients_have_gradients(family, two_threads):
    """As a penalty on the gradient of the image needs them."""

    def penalty(model: nn.Module, x: Tensor) -> list[Tensor]:
        x = x.requires_grad_()
        (gradient,) = torch.autograd.grad(loss_of(model(x)), x, create_graph=True)
        gradients = torch.autograd.grad(gradient.square().sum(), model.parameters(), allow_unused=True)
        return [torch.zeros(()) if gradient is None else gradient.double() for gradient in gradients]

    model = family(dict(depths=(1, 1), dims=(16, 32)), out_indices=(0, 1)).eval()
    fast = penalty(model, image(2, 3, 32, 24))
    exact = penalty(copy.deepcopy(model).double(), image(2, 3, 32, 24).double())
    for a, b in zip(fast, exact, strict=True):
        assert (a - b).abs().max() <= 1e-3 * max(1e-3, b.abs().max())


@pytest.mark.filterwarnings('ignore:There is a performance drop:UserWarning')
def test_torch_func_takes_the_plain_path(small, two_threads):
    model, x = small.eval(), image(2, 3, 33, 47)
    _, tangents = torch.func.jvp(lambda x: loss_of(model(x)), (x,), (torch.ones_like(x),))
    if not any(isinstance(module, Experts) for module in model.modules()):  # whose work depends on the image
        torch.testing.assert_close(torch.func.vmap(lambda x: loss_of(model(x[None])))(x).shape, torch.Size([2]))
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(model(leaf)), leaf)
    torch.testing.assert_close(tangents, gradient.sum(), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    ('in_dim', 'out_dim', 'turned'),
    [(8, 24, True), (24, 8, False), (12, 12, False), (16, 1024, False), (1024, 16, True), (1024, 1024, False)],
)
def test_gradients_of_a_linear_layer_either_way_round(two_threads, in_dim, out_dim, turned):
    torch.manual_seed(0)
    layer, x = Pointwise(in_dim, out_dim), torch.randn(2, 5, 7, in_dim, requires_grad=True)
    assert fast_paths.applies_to_training(x, layer.weight) and fast_paths._is_faster_turned(layer.weight) == turned
    exact, exact_x = copy.deepcopy(layer).double(), x.detach().double().requires_grad_()
    gradient = torch.randn(2, 7, 5, out_dim).transpose(1, 2)  # not contiguous
    layer(x).backward(gradient)
    exact(exact_x).backward(gradient.double())
    for a, b in ((x, exact_x), *zip(layer.parameters(), exact.parameters(), strict=True)):
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-4, atol=1e-4)
        assert a.grad.is_contiguous()


@pytest.mark.parametrize('axis', [2, 4])
def test_a_linear_layer_along_an_axis_and_its_derivatives(axis):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 2, 3, 1, 3, 3, 2, dtype=torch.float64), torch.randn(6, 6, dtype=torch.float64)
    rule = {2: 'brhcwsd,HDhd->brHcwsD', 4: 'brhcwsd,WDwd->brhcWsD'}[axis]
    wanted = torch.einsum(rule, x, weight.view(3, 2, 3, 2))
    torch.testing.assert_close(AlongAxis.apply(x, weight, axis), wanted)
    inputs = x.requires_grad_(), weight.requires_grad_()
    assert torch.autograd.gradcheck(lambda *each: AlongAxis.apply(*each, axis), inputs)
    assert torch.autograd.gradgradcheck(lambda *each: AlongAxis.apply(*each, axis), inputs)
