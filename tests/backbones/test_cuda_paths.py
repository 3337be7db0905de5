"""What is computed faster on a GPU gives the numbers of the plain operators: shown on a CPU that takes these ways."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlp_dense.backbones import cuda_paths, cuda_windows
from mlp_dense.backbones.as_mlp import axial_shift
from mlp_dense.backbones.cycle_mlp import CycleTokenMixing, cycle_shift
from mlp_dense.backbones.experts import Experts
from mlp_dense.backbones.hire_mlp import cyclic_window
from mlp_dense.backbones.layers import ChannelMLP, ChannelShift, GroupNorm1, WeightedBranches, WeightedSum
from mlp_dense.backbones.mlp_mixer import MixerTokenMixing
from mlp_dense.backbones.vip import PermuteMLP
from mlp_dense.backbones.wave_mlp import GroupedConv, WaveAlong, WaveMLP
from support.devices import built
from support.models import image, loss_of

SIZES = [(50, 75), (7, 90), (1, 1)]


@pytest.fixture
def gpu(monkeypatch):
    """A function that calls another one as if all tensors were on a GPU."""

    def call(function, *args):
        with monkeypatch.context() as patch:
            patch.setattr(cuda_paths, 'is_on_gpu', lambda *_: True)
            return function(*args)

    return call


def values_and_gradients(function, x, *parameters):
    x = x.detach().requires_grad_()
    out = function(x)
    return out.detach(), *torch.autograd.grad(loss_of([out]), (x, *parameters))


@pytest.mark.parametrize('size', SIZES)
def test_families(family, size, gpu):
    model, x = built(family).double(), image(2, 3, *size).double()

    def run(training):
        model.train(training and min(size) > 1).zero_grad()
        torch.manual_seed(0)  # of the noise of a router
        leaf = x.clone().requires_grad_()
        outs = model(leaf)
        loss_of(outs).backward()
        return *(out.detach() for out in outs), leaf.grad, *(parameter.grad for parameter in model.parameters())

    for training in (False, True):
        for found, expected in zip(gpu(run, training), run(training), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10 * max(1, expected.abs().max().item()))
    with torch.no_grad():
        torch.testing.assert_close(gpu(model.eval(), x), model(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_types_differ_by_rounding(family, dtype, gpu):
    model, x = built(family), image(2, 3, 50, 75)
    for module in model.modules():
        if isinstance(module, Experts):  # another rounding would choose other experts
            module.num_chosen = len(module.shares)
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(x.double())
        plain, fast = model.to(dtype)(x.to(dtype)), gpu(model, x.to(dtype))
        for a, b, c in zip(fast, plain, exact, strict=True):
            assert a.dtype == dtype and (a - c).abs().max() <= 2 * (b - c).abs().max() + 1e-2


def test_autocast_keeps_half_types(family, gpu):
    model, x = built(family), image(2, 3, 50, 75)
    for module in model.modules():
        if isinstance(module, Experts):
            module.num_chosen = len(module.shares)

    def run():
        model.zero_grad()
        with torch.autocast('cpu', torch.bfloat16):
            outs = model(x)
        loss_of(outs).backward()
        return *(out.detach() for out in outs), *(parameter.grad for parameter in model.parameters())

    exact = model.double()
    loss_of(outs := exact(x.double())).backward()
    exact = *(out.detach() for out in outs), *(parameter.grad.clone() for parameter in model.parameters())
    model.float()
    fast, plain = (
        [(a - c).norm() / c.norm() for a, c in zip(found, exact, strict=True) if c.norm() > 1e-6]
        for found in (gpu(run), run())
    )
    assert sum(fast) <= 2 * sum(plain) and max(fast) <= 2 * max(plain)  # of single tensors it is chance


@pytest.mark.parametrize('offset', [0, 30])  # of the mean, in deviations
@pytest.mark.parametrize('size', [(2, 6, 5, 7), (1, 1, 2, 1), (3, 4, 1, 1)])
@pytest.mark.parametrize('memory_format', [torch.channels_last, torch.contiguous_format])
def test_group_norm(offset, size, memory_format, gpu):
    x = (image(*size).double() + offset).contiguous(memory_format=memory_format)
    norm = GroupNorm1(size[1]).double()
    norm.load_state_dict({'weight': image(size[1]).double(), 'bias': torch.rand(size[1]).double()})
    found = gpu(values_and_gradients, norm, x, *norm.parameters())
    expected = values_and_gradients(norm, x, *norm.parameters())
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.no_grad():
            half = x.to(dtype)
            exact = F.group_norm(half.double(), 1, norm.weight, norm.bias)
            found = cuda_paths.group_norm(half, norm.weight.float(), norm.bias.float(), norm.eps)
        deviation, mean = torch.std_mean(half.double().flatten(1), 1, correction=0)
        allowed = 2 * torch.finfo(dtype).eps * (1 + (mean.abs() / (deviation + 1e-2)).max())
        assert found.dtype == dtype and (found - exact).abs().max() <= allowed * max(1, exact.abs().max())
    if not offset:
        inputs = x.requires_grad_(), *norm.parameters()
        torch.autograd.gradgradcheck(lambda *args: cuda_paths.group_norm(*args, 1e-5), inputs)


@pytest.mark.parametrize('deviation', [1, 1000])
def test_group_norm_in_fp16_of_large_values(deviation, gpu):
    """Small factors of the gradient do not vanish."""
    norm, x = GroupNorm1(64), (deviation * image(2, 64, 8, 8)).half()
    gradient = (x / deviation + image(2, 64, 8, 8).flip(3)).half()

    def of_x(norm, x, gradient):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(norm(x), x, gradient.to(x.dtype))[0].double()

    found, expected = gpu(of_x, norm.half(), x, gradient), of_x(copy.deepcopy(norm).double(), x.double(), gradient)
    assert (found - expected).norm() < 5e-3 * expected.norm()


@pytest.mark.parametrize('norm', [GroupNorm1(6, bias=False), GroupNorm1(6, affine=False), GroupNorm1(6)])
def test_group_norm_of_any_kind(norm, gpu):
    x = image(2, 6, 5, 7)
    torch.testing.assert_close(gpu(norm, x), norm(x))


def test_gradients_of_weights_are_sums_in_float32(gpu):
    maps = [torch.ones(1, 200, 304, 2).half().requires_grad_() for _ in range(3)]
    weights = [torch.ones(1, 1, 1, 2, requires_grad=True) for _ in range(3)]
    out = WeightedSum.apply(*maps, *weights)
    out.backward(2 * torch.ones_like(out))
    assert out.dtype == torch.float16 and all((weight.grad == 121600).all() for weight in weights)


def test_derivatives_of_a_weighted_sum_of_maps_in_any_memory():
    maps = [torch.rand(1, 2, 2, 2, 2).double().transpose(i, i + 1).requires_grad_() for i in (1, 2, 3)]
    weights = [torch.rand(1, 1, 2, 1, 2).double().requires_grad_() for _ in range(3)]
    assert WeightedSum.apply(*maps, *weights).is_contiguous()
    assert torch.autograd.gradcheck(WeightedSum.apply, (*maps, *weights))
    assert torch.autograd.gradgradcheck(WeightedSum.apply, (*maps, *weights))


def test_group_norm_keeps_its_input_alone():
    kept, x = [], image(2, 8, 5, 7).contiguous(memory_format=torch.channels_last).bfloat16().requires_grad_()
    weight, bias = (torch.rand(8, requires_grad=True) for _ in range(2))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        out = cuda_paths.group_norm(x, weight, bias, 1e-5)
    large = [t for t in kept if t.numel() >= x.numel()]
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert [t.data_ptr() for t in large] == [x.data_ptr()]
    out.sum().backward()
    assert x.grad.dtype == torch.bfloat16 and weight.grad.dtype == torch.float32


@pytest.mark.parametrize('axis', [1, 2])
@pytest.mark.parametrize('dim', [7, 12, 20])
@pytest.mark.parametrize('shape', [(1, 1), (2, 9), (9, 2), (16, 5)])
def test_shifts_are_the_same_bits(axis, dim, shape, gpu):
    for shift, reach in [(cycle_shift, 1), *((partial(axial_shift, size), size // 2) for size in (1, 3, 5, 7))]:
        layer, x = ChannelShift(dim, axis, shift, reach), image(2, *shape, dim).double()
        for each in (x, x.transpose(1, 2).contiguous().transpose(1, 2), x.bfloat16().masked_fill(x > 2, torch.inf)):
            found = gpu(values_and_gradients, layer, each)
            assert all(map(torch.equal, found, values_and_gradients(partial(shift, axis=axis), each)))
            assert found[0].is_contiguous()
    x, arguments = image(1, 2, 3, 3).double().requires_grad_(), (torch.tensor([1, 0, -2]), 2, axis)
    torch.autograd.gradgradcheck(lambda x: cuda_paths.Shift.apply(x, *arguments), x)


def test_branches_keep_their_type_in_an_autocast_region():
    branches = [image(2, 3, 5, 8).bfloat16() for _ in range(3)]
    layer = WeightedBranches(8)
    with torch.autocast('cpu', torch.bfloat16):
        found = layer(*branches)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), layer(*(x.float() for x in branches)), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize('axis', [1, 2])
@pytest.mark.parametrize(
    ('rows', 'period', 'start', 'length'),
    [(7, 7, -2, 9), (9, 7, 2, 7), (2, 2, 1, 9), (6, 6, 0, 6), (6, 6, 0, 9), (1, 1, -2, 4), (5, 5, -7, 5), (9, 7, 2, 5)],
)
def test_cyclic_windows(axis, rows, period, start, length, gpu):
    x = image(2, rows, rows, 3).double()

    def window(x):
        return cyclic_window(x, period, start, length, axis)

    found, expected = gpu(values_and_gradients, window, x), values_and_gradients(window, x)
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], rtol=1e-12, atol=1e-12)
    gpu(torch.autograd.gradgradcheck, window, x[:1].clone().requires_grad_())


@pytest.mark.parametrize('axis', [1, 2])
@pytest.mark.parametrize('dim', [8, 5])  # of an odd number a pair holds a real and an imaginary part
def test_waves(axis, dim, gpu, monkeypatch):
    monkeypatch.setattr(cuda_paths, 'HALF_TYPES', (torch.float64,))
    along = WaveAlong(dim, axis, False, nn.BatchNorm2d).double()
    x = image(2, 3, 5, dim).double()
    found, expected = gpu(values_and_gradients, along, x), values_and_gradients(along, x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    calls, full_kernel = [], cuda_paths.full_kernel
    monkeypatch.setattr(cuda_paths, 'full_kernel', lambda weight: calls.append(weight) or full_kernel(weight))
    gpu(along, x)
    assert len(calls) == (2 if dim == 8 else 1)
    gpu(torch.autograd.gradgradcheck, along.eval(), x[:1, :2, :2].clone().requires_grad_())


@pytest.mark.parametrize(('in_dim', 'kernel_size'), [(12, (1, 7)), (6, (7, 1)), (12, (1, 3))])
def test_a_full_kernel_gives_what_groups_give(in_dim, kernel_size):
    conv, x = GroupedConv(in_dim, 6, kernel_size).double(), image(2, 5, 9, in_dim).double()
    found = F.conv2d(x.permute(0, 3, 1, 2), cuda_paths.full_kernel(conv.weight), padding='same').permute(0, 2, 3, 1)
    torch.testing.assert_close(found, conv(x), rtol=1e-12, atol=1e-12)


def test_waves_compile(gpu, monkeypatch):
    monkeypatch.setattr(cuda_paths, 'HALF_TYPES', (torch.float64,))
    torch._dynamo.reset()
    model = WaveMLP(dict(depths=(1, 2), dims=(16, 32)), out_indices=(0, 1)).double()
    x = image(2, 3, 50, 75).double()

    def gradients(of):
        model.zero_grad()
        loss_of(of(x)).backward()
        return [parameter.grad for parameter in model.parameters()]

    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend='aot_eager')
    torch.testing.assert_close(gpu(gradients, compiled), gradients(model), rtol=1e-8, atol=1e-8)


def test_products_of_one_map_share_its_copy_in_an_autocast_region(gpu):
    x, kept = image(2, 8, 8, 12), []
    for mixing in (PermuteMLP(12, 4, False), CycleTokenMixing(12)):
        mixing.channel.register_forward_pre_hook(lambda module, args: kept.append(args[0].dtype))
        for autocast in (False, True):
            with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
                gpu(mixing, x)
    assert kept == 2 * [torch.float32, torch.bfloat16]


@pytest.mark.parametrize('size', [(8, 12), (4, 4), (4, 8)])
def test_windows(size, gpu):
    mixing, x = PermuteMLP(12, 4, False).double(), image(2, *size, 12).double()
    assert torch.equal(cuda_windows.windows_joined(cuda_windows.windows_apart(x, 4), *size), x)
    found, expected = (call(values_and_gradients, mixing.mix, x) for call in (gpu, lambda of, *args: of(*args)))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_weighted_sums(gpu):
    layer, x = WeightedBranches(4).double(), image(2, 3, 2, 12).double()

    def weighted(x):
        return layer(*x.chunk(3, -1))

    found, expected = (call(values_and_gradients, weighted, x) for call in (gpu, lambda of, *args: of(*args)))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    gpu(torch.autograd.gradgradcheck, weighted, x.requires_grad_())


@pytest.mark.parametrize('size', [(6, 9), (3, 3)])
def test_token_mlp(size, gpu):
    mlp, x = ChannelMLP(9, 5).double(), image(2, *size, 4).double()
    mixing = MixerTokenMixing(3, False, mlp)
    found = gpu(values_and_gradients, mixing.mix, x, *mlp.parameters())
    expected = values_and_gradients(mixing.mix, x, *mlp.parameters())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    inputs = x[:, :3, :3].clone().requires_grad_(), *mlp.fc1.parameters(), *mlp.fc2.parameters()
    torch.autograd.gradgradcheck(lambda x, *weights: cuda_windows.token_mlp(x, 3, *weights), inputs)
    calls = []
    mlp.fc1.register_forward_hook(lambda *_: calls.append('fc1'))
    torch.testing.assert_close(gpu(mixing.mix, x), found[0])
    assert calls == ['fc1']


@pytest.mark.parametrize('size', [(6, 9), (5, 9), (6, 7), (4, 7)])
def test_filling_up_and_cropping(size, gpu):
    mixing, x = MixerTokenMixing(3, False, ChannelMLP(9, 5)).double(), image(2, *size, 4).double()
    found, expected = (call(values_and_gradients, mixing, x) for call in (gpu, lambda of, *args: of(*args)))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(cuda_windows.cropped(cuda_windows.filled_up(x, 6, 9), *size), x)
    gpu(torch.autograd.gradgradcheck, mixing, x[:1, :, :, :1].clone().requires_grad_())
