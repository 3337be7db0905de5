"""The oneDNN implementations compute what the references compute."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from mlp_dense import ASMLP, kernels
from mlp_dense.backbones import FAMILIES
from mlp_dense.backbones.experts import Experts
from mlp_dense.backbones.layers import Pointwise
from mlp_dense.backbones.vip import along_axis
from mlp_dense.kernels import dispatch
from support.models import SMALL, built, image, loss_of

SIZES = [(64, 64), (50, 75), (7, 90), (3, 1), (1, 1)]
BF16 = pytest.param(
    torch.bfloat16,
    marks=pytest.mark.skipif(torch.bfloat16 not in dispatch.DTYPES, reason='oneDNN has no bf16 on this CPU'),
)

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason='PyTorch is built without oneDNN')


def by_reference(run):
    with kernels.use('reference'), torch.backends.mkldnn.flags(enabled=False):
        return run()


def choose_all_experts(model: nn.Module, dtype: torch.dtype) -> None:
    """Choose every expert if the dtype rounds, because another rounding would choose other experts."""
    for module in model.modules() if dtype == torch.bfloat16 else ():
        if isinstance(module, Experts):
            module.num_chosen = len(module.shares)


def compare_inference(model: nn.Module, x: Tensor, dtype: torch.dtype) -> None:
    """Raise AssertionError if the fast outputs differ from float64 by more than rounding."""
    choose_all_experts(model, dtype)
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(x.double())
    model, x = model.to(dtype), x.to(dtype)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            fast, plain = model(x), by_reference(lambda: model(x))
        for a, b, c in zip(fast, plain, exact, strict=True):
            allowed = 1e-5 * c.abs().max() if dtype == torch.float32 else 2 * (b - c).abs().max() + 1e-2
            assert (a - c).abs().max() <= allowed


def compare_training(model: nn.Module, x: Tensor, dtype: torch.dtype, of_image: bool = True) -> None:
    """Raise AssertionError if gradients of the parameters (and of the image) differ by more than rounding."""
    choose_all_experts(model, dtype)

    def gradients(model: nn.Module, x: Tensor) -> list[Tensor | None]:
        torch.manual_seed(0)  # of the noise of a router
        model.zero_grad()
        x = x.clone().requires_grad_(of_image)
        loss_of(model(x)).backward()
        return [None if tensor.grad is None else tensor.grad.double() for tensor in [x, *model.parameters()]]

    exact = gradients(copy.deepcopy(model).double(), x.double())
    model, x = model.to(dtype), x.to(dtype)
    fast, plain = gradients(model, x), by_reference(lambda: gradients(model, x))
    for a, b, c in zip(fast, plain, exact, strict=True):
        assert (a is None) == (b is None) == (c is None)
        if c is not None and c.abs().max() > 1e-9:  # the gradient of a bias before a BatchNorm is only rounding
            allowed = 1e-3 if dtype == torch.float32 else 3 * (b - c).abs().max() / c.abs().max() + 1e-2
            assert (a - c).abs().max() <= allowed * c.abs().max() + 1e-6


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('dtype', [torch.float32, BF16])
def test_inference_equals_the_reference(family, size, dtype):
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
def test_training_equals_the_reference(family, size, dtype, frozen, two_threads):
    model = family(SMALL)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(pattern in name for pattern in frozen))
    compare_training(model, image(2, 3, *size), dtype, 'stem' not in frozen)


WITHOUT_OPERATORS = """
import sys, types, torch
torch.ops.mkldnn = types.SimpleNamespace()  # as a release of PyTorch that renamed them
from mlp_dense import kernels
from mlp_dense.backbones import FAMILIES
assert not kernels.applies(torch.ones(1))
arch, x, expected = torch.load(sys.argv[1])
torch.set_num_threads(2)
for family in FAMILIES:
    weights, outs, gradient = expected[family.__name__]
    model = family(arch).eval()
    model.load_state_dict(weights)
    x.grad = None
    outputs = model(x)
    sum(out.sum() for out in outputs).backward()
    torch.testing.assert_close(outputs, outs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(x.grad, gradient, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(model(x), outs, rtol=1e-4, atol=1e-4)
"""


@pytest.mark.slow
def test_missing_private_operators_select_the_references_and_log_one_line(save, two_threads):
    x, expected = image(2, 3, 33, 47).requires_grad_(), {}
    for family in FAMILIES:
        model = built(family)
        x.grad = None
        outs = model(x)
        sum(out.sum() for out in outs).backward()
        outs = tuple(out.detach() for out in outs)
        expected[family.__name__] = model.state_dict(), outs, x.grad.clone()
    path = save((SMALL, x, expected))
    done = subprocess.run([sys.executable, '-c', WITHOUT_OPERATORS, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line for line in done.stderr.splitlines() if 'slower operators' in line] == [
        "PyTorch's own, slower operators run on a CPU: 'types.SimpleNamespace' object has no attribute "
        "'_linear_pointwise'."
    ]


@pytest.mark.parametrize('axis', [1, 2])
@pytest.mark.parametrize(
    ('rows', 'period', 'start', 'length'), [(7, 7, -2, 9), (9, 7, 2, 7), (2, 2, 1, 9), (6, 6, 0, 6), (5, 5, -7, 5)]
)
def test_cyclic_window_and_its_gradient(axis, rows, period, start, length):
    x = image(2, rows, rows, 3).double().requires_grad_()
    window = kernels.cyclic_window(x, period, start, length, axis)
    expected = torch.stack([x.select(axis, row % period) for row in range(start, start + length)], axis)
    gradient = torch.rand_like(expected)
    assert torch.equal(window, expected)
    torch.testing.assert_close(*(torch.autograd.grad(out, x, gradient)[0] for out in (window, expected)))


def shifted(x: Tensor, offsets: tuple[int, ...], axis: int, group: int) -> Tensor:
    """Shift value by value."""
    out = torch.zeros_like(x)
    for channel in range(x.shape[3]):
        offset = offsets[channel // group % len(offsets)]
        for position in range(x.shape[axis]):
            if 0 <= position + offset < x.shape[axis]:
                source = x[..., channel].select(axis, position + offset)
                out[..., channel].select(axis, position).copy_(source)
    return out


@pytest.mark.parametrize('axis', [1, 2])
@pytest.mark.parametrize('dim', [7, 12, 20])
@pytest.mark.parametrize('shape', [(1, 1), (2, 9), (9, 2), (16, 5)])
@pytest.mark.parametrize('dtype', [torch.float32, BF16])
def test_shifts_have_identical_bits(axis, dim, shape, dtype):
    x = image(2, *shape, dim).to(dtype)
    for offsets, group in [((0, 1, -1), 1), ((0,), 7), ((2, 1, 0, -1, -2), -(-dim // 5)), ((1, -3), 3)]:
        expected = shifted(x, offsets, axis, group)
        for source in (x, x.transpose(1, 2).contiguous().transpose(1, 2)):
            assert kernels.applies(source)
            for run in (by_reference, lambda run: run()):
                leaf = source.clone().requires_grad_()
                out = run(lambda leaf=leaf, args=(offsets, axis, group): kernels.shift(leaf, *args))
                (gradient,) = torch.autograd.grad(out, leaf, x)
                assert torch.equal(out, expected)
                assert torch.equal(gradient, shifted(x, tuple(-offset for offset in offsets), axis, group))


@pytest.mark.parametrize('bias', [True, False])
def test_linear_layer(bias):
    x, layer = image(2, 5, 7, 12), Pointwise(12, 9, bias)
    with torch.no_grad():
        inferred = kernels.linear(x, layer.weight, layer.bias)
    trained = kernels.linear(x, layer.weight, layer.bias)
    expected = nn.functional.linear(x, layer.weight, layer.bias)
    for out in (inferred, trained):
        torch.testing.assert_close(out.detach(), expected.detach(), rtol=1e-5, atol=1e-6)
    assert trained.requires_grad and not inferred.requires_grad


def test_torch_func_gives_the_gradients_of_autograd(small, two_threads):
    model, x = small.eval(), image(2, 3, 33, 47)
    parameters = dict(model.named_parameters())

    def loss(parameters):
        return loss_of(torch.func.functional_call(model, parameters, (x,)))

    gradients = torch.func.grad(loss)(parameters)
    expected = torch.autograd.grad(loss(parameters), parameters.values())
    torch.testing.assert_close(tuple(gradients.values()), expected, rtol=1e-3, atol=1e-3)


def test_gradients_have_gradients(family, two_threads):
    """A penalty on the gradient of the image needs them."""

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
def test_torch_func_runs_the_references(small, two_threads):
    model, x = small.eval(), image(2, 3, 33, 47)
    _, tangents = torch.func.jvp(lambda x: loss_of(model(x)), (x,), (torch.ones_like(x),))
    if not any(isinstance(module, Experts) for module in model.modules()):  # whose work depends on the image
        torch.testing.assert_close(torch.func.vmap(lambda x: loss_of(model(x[None])))(x).shape, torch.Size([2]))
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(model(leaf)), leaf)
    torch.testing.assert_close(tangents, gradient.sum(), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(('in_dim', 'out_dim'), [(8, 24), (24, 8), (12, 12)])
def test_gradients_of_a_linear_layer_have_the_memory_of_its_parameters(two_threads, in_dim, out_dim):
    layer, x = Pointwise(in_dim, out_dim), image(2, 5, 7, in_dim).requires_grad_()
    exact, exact_x = copy.deepcopy(layer).double(), x.detach().double().requires_grad_()
    gradient = image(2, 7, 5, out_dim).transpose(1, 2)  # not contiguous
    layer(x).backward(gradient)
    exact(exact_x).backward(gradient.double())
    for a, b in ((x, exact_x), *zip(layer.parameters(), exact.parameters(), strict=True)):
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-4, atol=1e-4)
        assert a.grad.is_contiguous()


@pytest.mark.parametrize('axis', [2, 4])
def test_linear_layer_along_an_axis(axis):
    layer, x = nn.Linear(6, 6, False).double(), torch.randn(2, 2, 3, 1, 3, 3, 2, dtype=torch.float64)
    rule = {2: 'brhcwsd,HDhd->brHcwsD', 4: 'brhcwsd,WDwd->brhcWsD'}[axis]
    expected = torch.einsum(rule, x, layer.weight.view(3, 2, 3, 2))
    torch.testing.assert_close(along_axis(x, layer, axis), expected)


@pytest.mark.parametrize('create_graph', [False, True])
def test_batched_gradients_are_those_of_single_ones(family, two_threads, create_graph):
    """``is_grads_batched`` and ``jacobian(vectorize=True)`` run the backward pass in vmap."""
    if family is ASMLP:
        pytest.skip("PyTorch's own gradient of GroupNorm does not support it")
    model = family(dict(depths=(1,), dims=(16,)), out_indices=(0,)).eval()
    (out,) = model(image(1, 3, 8, 8))
    outer, parameters = image(2, *out.shape), list(model.parameters())
    options = dict(retain_graph=True, create_graph=create_graph)
    batched = torch.autograd.grad(out, parameters, outer, is_grads_batched=True, **options)
    single = [torch.autograd.grad(out, parameters, gradient, **options) for gradient in outer]
    for gradients, *expected in zip(batched, *single, strict=True):
        torch.testing.assert_close(gradients, torch.stack(expected), rtol=1e-3, atol=1e-4)
