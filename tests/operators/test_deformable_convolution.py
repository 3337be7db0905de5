"""Deformable convolutions equal the compiled ones, and a loop over all samples."""

import math
from itertools import product

import pytest
import torch
from mmcv.ops import DeformConv2d, ModulatedDeformConv2d
from mmdet.models.necks import DyHead
from torch import Tensor

from mlp_dense.errors import UserError
from mlp_dense.operators.deformable import deform_conv2d

GEOMETRY = dict(stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2, deform_groups=4)


def layer_and_inputs(
    modulated: bool, dtype: torch.dtype = torch.float64
) -> tuple[DeformConv2d | ModulatedDeformConv2d, list[Tensor]]:
    """Return mmcv's layer and its input, offsets and mask: two groups of channels, four of offsets, uneven sizes."""
    torch.manual_seed(0)
    layer = (ModulatedDeformConv2d if modulated else DeformConv2d)(8, 6, (3, 2), **GEOMETRY, bias=modulated)
    x, offset = torch.randn(2, 8, 9, 11), 2 * torch.randn(2, 4 * 2 * 6, 5, 13)
    inputs = [x, offset, *([torch.rand(2, 4 * 6, 5, 13)] if modulated else [])]
    return layer.to(dtype), [tensor.to(dtype).requires_grad_() for tensor in inputs]


def loop(layer: ModulatedDeformConv2d, inputs: list[Tensor], gradient: Tensor) -> list[Tensor]:
    """Return the output of a layer and its gradients for the inputs and the weight, in float64, sample by sample.

    Offsets and masks are read from the values of an image in order, whatever the shape of their map.
    """
    x, offset, *masks = inputs
    weight = layer.weight.detach().double()
    (batch, channels, *size), (_, _, *kernel), out_size = x.shape, weight.shape, gradient.shape[2:]
    taps, channels_of_group = kernel[0] * kernel[1], channels // layer.deform_groups
    columns = torch.zeros(batch, channels, taps, *out_size, dtype=torch.float64)
    group_weights = weight.flatten(2).unflatten(0, (layer.groups, -1))
    by_group = gradient.double().unflatten(1, (layer.groups, -1))
    column_gradients = torch.einsum('bgdij,gdct->bgctij', by_group, group_weights).reshape_as(columns)
    gradients = [torch.zeros_like(tensor, dtype=torch.float64) for tensor in inputs]
    for b, g, t, i, j in product(*map(range, (batch, layer.deform_groups, taps, *out_size))):
        planes = (g * 2 * taps + 2 * t, g * 2 * taps + 2 * t + 1)
        indices = [(plane * out_size[0] + i) * out_size[1] + j for plane in planes]
        tap = t // kernel[1], t % kernel[1]
        starts = [(i, j)[n] * layer.stride[n] + tap[n] * layer.dilation[n] - layer.padding[n] for n in (0, 1)]
        point = [(offset[b].flatten()[index] + start).item() for index, start in zip(indices, starts, strict=True)]
        if not all(-1 < p < n for p, n in zip(point, size, strict=True)):
            continue
        mask_index = ((g * taps + t) * out_size[0] + i) * out_size[1] + j
        mask = masks[0][b].flatten()[mask_index].item() if masks else 1
        part = slice(g * channels_of_group, (g + 1) * channels_of_group)
        incoming, sample = column_gradients[b, part, t, i, j], 0
        low = [math.floor(p) for p in point]
        for corner in product((0, 1), repeat=2):
            row, column = low[0] + corner[0], low[1] + corner[1]
            if 0 <= row < size[0] and 0 <= column < size[1]:
                wy, wx = (p - n if c else n + 1 - p for p, n, c in zip(point, low, corner, strict=True))
                sy, sx = (1 if c else -1 for c in corner)
                value = x[b, part, row, column].double()
                sample = sample + wy * wx * value
                gradients[0][b, part, row, column] += wy * wx * mask * incoming
                gradients[1][b].view(-1)[indices[0]] += (sy * wx * mask * value * incoming).sum()
                gradients[1][b].view(-1)[indices[1]] += (wy * sx * mask * value * incoming).sum()
        columns[b, part, t, i, j] = mask * sample
        if masks:
            gradients[2][b].view(-1)[mask_index] += (sample * incoming).sum()
    columns = columns.unflatten(1, (layer.groups, -1))
    output = torch.einsum('bgctij,gdct->bgdij', columns, group_weights).flatten(1, 2)
    grad_weight = torch.einsum('bgctij,bgdij->gdct', columns, by_group).reshape_as(weight)
    return [output, *gradients, grad_weight]


def assert_equal_to_loop(layer: DeformConv2d | ModulatedDeformConv2d, inputs: list[Tensor]) -> None:
    y = layer(*inputs)
    gradient = torch.randn_like(y)
    actual = [y, *torch.autograd.grad(y, [*inputs, layer.weight], gradient)]
    bias = 0 if getattr(layer, 'bias', None) is None else layer.bias.detach().double()[:, None, None]
    expected = loop(layer, [tensor.detach() for tensor in inputs], gradient)
    expected[0] = expected[0] + bias
    bound = 1e-12 if y.dtype == torch.float64 else 1e-5
    for result, reference in zip(actual, expected, strict=True):
        assert (result.double() - reference).abs().max() <= bound * reference.abs().max().clamp(min=1)


def place(layer: DeformConv2d | ModulatedDeformConv2d, offset: Tensor, targets: list[list[float]]) -> None:
    """Set the offsets so that samples are at random ones of the target rows and columns."""
    shifts = offset.data.view(len(offset), layer.deform_groups, *layer.kernel_size, 2, *offset.shape[2:])
    for axis in (0, 1):
        taps, outputs = (torch.arange(n) for n in (layer.kernel_size[axis], offset.shape[2 + axis]))
        base = taps[:, None] * layer.dilation[axis] - layer.padding[axis] + outputs * layer.stride[axis]
        base = base[:, None, :, None] if axis == 0 else base[:, None]
        target = torch.tensor(targets[axis], dtype=offset.dtype)
        shift = shifts.select(4, axis)
        shift.copy_(target[torch.randint(len(target), shift.shape)] - base)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize('modulated', [False, True])
@pytest.mark.parametrize('points', ['zero', 'whole', 'fractional', 'border', 'outside'])
def test_deformable_convolution_equals_the_loop(points, modulated, dtype, fallback):
    layer, inputs = layer_and_inputs(modulated, dtype)
    offset, (height, width) = inputs[1], inputs[0].shape[2:]
    if points in ('zero', 'whole', 'fractional'):
        offset.data = {'zero': 0 * offset, 'whole': offset.round(), 'fractional': offset}[points].detach()
    else:
        edge = [[-1, -0.75, 0, n - 1, n - 0.75, n] for n in (height, width)]
        far = [[-1e4, -1.5, 2.5, n + 0.5, math.inf, -math.inf, math.nan] for n in (height, width)]
        place(layer, offset, edge if points == 'border' else far)
        offset.requires_grad_()
    assert_equal_to_loop(layer, [tensor.detach().requires_grad_() for tensor in inputs])


@pytest.mark.parametrize('width', [25, 50, 100])
def test_initial_offsets_have_the_slope_towards_larger_positions(width, fallback):
    """Each DCN starts with zeros. A float32 position that is scaled to (-1, 1) and back is below some whole numbers."""
    layer = ModulatedDeformConv2d(2, 2, 3, padding=1)
    inputs = [torch.randn(1, 2, 3, width), torch.zeros(1, 18, 3, width), torch.rand(1, 9, 3, width)]
    assert_equal_to_loop(layer, [tensor.requires_grad_() for tensor in inputs])


def test_offsets_and_masks_of_a_finer_level_are_read_in_the_order_of_their_values(fallback):
    layer, (x, *_) = layer_and_inputs(True)
    finer = torch.randn(2, 4 * 3 * 6, 9, 25, dtype=torch.float64)
    offset, mask = finer[:, :48].requires_grad_(), finer[:, 48:].sigmoid().requires_grad_()
    assert_equal_to_loop(layer, [x, offset.detach().requires_grad_(), mask.detach().requires_grad_()])


@pytest.mark.filterwarnings('ignore:In MMCV v1.4.4, we modified')
def test_dyhead_runs(fallback):
    levels = [torch.randn(2, 16, size, size, requires_grad=True) for size in (8, 4, 2)]
    sum(level.sum() for level in DyHead(16, 16, num_blocks=2)(levels)).backward()
    assert all(level.grad.isfinite().all() for level in levels)


@pytest.mark.parametrize('modulated', [False, True])
def test_offsets_of_a_coarser_level_are_refused(modulated, fallback):
    layer, (x, offset, *mask) = layer_and_inputs(modulated)
    with pytest.raises(UserError, match=r'Offsets.* of shape \(48, 1, 1\) do not fit; pass .* \(48, 5, 13\)'):
        layer(x, offset[:, :, :1, :1], *mask)


@pytest.mark.parametrize('modulated', [False, True])
def test_deformable_convolution_equals_the_compiled_one(modulated, compiled, request):
    layer, inputs = layer_and_inputs(modulated)
    results = []
    for operators in ('compiled', 'fallback'):
        request.getfixturevalue(operators)
        y = layer(*inputs)
        results.append([y, *torch.autograd.grad((y**2).sum(), [*inputs, *layer.parameters()])])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def test_deformable_convolution_without_offsets_is_a_convolution(fallback):
    layer, (x, offset) = layer_and_inputs(False)
    expected = torch.nn.functional.conv2d(x, layer.weight, None, (2, 1), (1, 2), (1, 2), 2)
    torch.testing.assert_close(layer(x, torch.zeros_like(offset)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_deformable_convolution_in_half_precision(dtype, fallback):
    """Positions are exact beyond 256, where bfloat16 has no fractions."""
    layer = DeformConv2d(4, 2, 3, padding=1).to(dtype)
    x, offset = torch.randn(1, 4, 3, 300, dtype=dtype), torch.full((1, 18, 3, 300), 0.5, dtype=dtype)
    expected = layer.double()(x.double(), offset.double())
    assert (layer.to(dtype)(x, offset) - expected).abs().max() <= 4 * torch.finfo(dtype).eps * expected.abs().max()


def test_deformable_convolution_passes_gradcheck():
    torch.manual_seed(0)
    inputs = torch.randn(1, 2, 4, 5), 0.3 + torch.rand(1, 8, 3, 4) / 2, torch.randn(3, 2, 2, 2), torch.rand(1, 4, 3, 4)
    inputs = [tensor.double().requires_grad_() for tensor in inputs]
    geometry = dict(stride=(1, 1), padding=(0, 0), dilation=(1, 1))
    assert torch.autograd.gradcheck(lambda x, o, w, m: deform_conv2d(x, o, w, mask=m, **geometry), inputs)


@pytest.mark.parametrize('modulated', [False, True])
def test_fixed_offsets_of_narrow_groups_give_the_same_results(modulated, fallback):
    """Offsets without a gradient, as those of CycleMLP, take a faster path."""
    layer, inputs = layer_and_inputs(modulated)
    with torch.no_grad():
        inputs[1][0] = inputs[1][0].round()
        inputs[1][1, :3] *= 9
        inputs[1][1, 5, 0, :4] = torch.tensor([math.nan, math.inf, -math.inf, 1e30])
    results = []
    for has_gradient in (True, False):
        inputs[1].requires_grad_(has_gradient)
        others = [tensor for i, tensor in enumerate(inputs) if i != 1]
        out = layer(*inputs)
        results.append([out, *torch.autograd.grad((out * torch.arange(13)).sum(), [*others, layer.weight])])
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-10)
