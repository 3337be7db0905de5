"""The operations of the networks in plain PyTorch.

Feature maps are (B, H, W, C). Arguments called `layer`, `fc1`, `fc2` and `norm` are modules, which the references call.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .compat import sizes_match


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a linear layer over the channels of (..., C)."""
    return F.linear(x, weight, bias)


def mlp(x: Tensor, fc1: nn.Linear, fc2: nn.Linear) -> Tensor:
    """Apply two linear layers with GELU between them."""
    return fc2(F.gelu(fc1(x)))


def expert_mlp(x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
    """Apply :func:`mlp` with the parameters of one expert."""
    return F.linear(F.gelu(F.linear(x, weight1, bias1)), weight2, bias2)


def shift(x: Tensor, offsets: Sequence[int], axis: int, group: int = 1) -> Tensor:
    """Read channel c ``offsets[c // group % len(offsets)]`` positions further along an axis, zero outside."""
    size, channels, reach = x.shape[axis], x.shape[3], max(map(abs, offsets))
    padded = F.pad(x, (0, 0, reach, reach) if axis == 2 else (0, 0, 0, 0, reach, reach))
    if channels <= group * len(offsets):  # each offset has one group of adjacent channels
        groups = zip(padded.split(group, 3), offsets, strict=False)
        return torch.cat([channels.narrow(axis, reach + offset, size) for channels, offset in groups], 3)
    index = torch.arange(channels, device=x.device) // group % len(offsets)
    out = padded.narrow(axis, reach + offsets[0], size)
    for i, offset in enumerate(offsets[1:], start=1):
        out = torch.where(index == i, padded.narrow(axis, reach + offset, size), out)
    return out


def cyclic_window(x: Tensor, period: int, start: int, length: int, axis: int) -> Tensor:
    """Return `length` rows, from `start` on, of the periodic continuation of the first `period` rows along an axis."""
    if sizes_match((start % period, length, x.shape[axis]), (0, period, period)):
        return x
    return x.index_select(axis, torch.arange(start, start + length, device=x.device) % period)


def along_axis(x: Tensor, layer: nn.Module, axis: int) -> Tensor:
    """Apply a linear layer to the positions along axis 2 (height) or 4 (width) and the channels of a segment together.

    Windows are (B, rows, grid, columns, grid, segments, depth) with as many segments as positions along the axis.
    """
    return segments_last(layer(segment_rows(x, axis)), x.shape, axis)


def segment_rows(x: Tensor, axis: int) -> Tensor:
    """Return windows as (B, rows of products, other positions, positions along the axis * depth)."""
    x = x.transpose(axis, 5)
    batch, *sizes = x.shape
    return x.reshape(batch, *(outer * inner for outer, inner in zip(sizes[::2], sizes[1::2], strict=True)))


def segments_last(rows: Tensor, shape: Sequence[int], axis: int) -> Tensor:
    """Undo :func:`segment_rows` for windows of a shape."""
    return rows.reshape(shape).transpose(axis, 5).contiguous()  # both axes have one size


def depthwise(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve each channel with its own kernel (C, 1, odd, odd), with zeros outside."""
    padding = [size // 2 for size in kernel.shape[2:]]
    return F.conv2d(x.permute(0, 3, 1, 2), kernel, bias, padding=padding, groups=len(kernel)).permute(0, 2, 3, 1)


def grouped_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve (..., K * C) with kernels (C, K, odd, odd): channel i reads the K channels, one or two, from i * K on.

    A depthwise convolution and the sum of each pair are ten times faster on a CPU than groups of two channels.
    """
    kernel = weight.flatten(0, 1).unsqueeze(1)
    x = depthwise(x, kernel, bias)
    return x if len(kernel) == len(weight) else x[..., ::2] + x[..., 1::2]


def upsample(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a transposed convolution of (B, C, H, W) with kernels (C, out, 2, 2) that do not overlap."""
    return F.conv_transpose2d(x, weight, bias, stride=2)
