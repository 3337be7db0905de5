"""Deformable convolution (https://arxiv.org/abs/1811.11168), as mmcv's layers call it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from . import has_torchvision

Pair = Sequence[int]


def deform_conv2d(
    x: Tensor, offset: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair, mask: Tensor | None = None
) -> Tensor:
    """Convolve an input (B, C, H, W) to (B, D, H', W'), sampled at shifted positions of the kernel, without a bias.

    `offset` (B, 2 * G * k, H', W') is dy and dx of the k positions of the kernel for G groups of channels, `mask`
    (B, G * k, H', W') factors of the samples, and `weight` (D, C / groups, kernel height, kernel width). `stride`,
    `padding` and `dilation` are (vertical, horizontal).
    """
    if x.is_cuda and has_torchvision('cuda'):
        from torchvision.ops import deform_conv2d

        return deform_conv2d(x, offset, weight, None, tuple(stride), tuple(padding), tuple(dilation), mask)
    batch, channels, height, width = x.shape
    (rows, columns), (out_height, out_width) = weight.shape[2:], offset.shape[2:]
    taps = rows * columns
    offset_groups = offset.shape[1] // (2 * taps)
    dy, dx = offset.reshape(batch * offset_groups, rows, columns, 2, out_height, out_width).unbind(3)
    y = dy + _positions(rows, out_height, stride[0], padding[0], dilation[0], x)[:, None, :, None]
    x_ = dx + _positions(columns, out_width, stride[1], padding[1], dilation[1], x)[:, None]
    grid = torch.stack([(2 * x_ + 1) / width - 1, (2 * y + 1) / height - 1], -1).flatten(1, 3)
    images = x.reshape(batch * offset_groups, channels // offset_groups, height, width)
    samples = F.grid_sample(images, grid, align_corners=False)
    samples = samples.view(batch, offset_groups, channels // offset_groups, taps, -1)
    if mask is not None:
        samples = samples * mask.reshape(batch, offset_groups, 1, taps, -1)
    groups = channels // weight.shape[1]
    samples = samples.reshape(batch, groups, weight.shape[1] * taps, -1)
    return (weight.reshape(groups, -1, samples.shape[2]) @ samples).reshape(batch, -1, out_height, out_width)


def _positions(kernel: int, size: int, stride: int, padding: int, dilation: int, like: Tensor) -> Tensor:
    """Return the positions (kernel, size) of the input along one axis."""
    taps, outputs = (torch.arange(n, dtype=like.dtype, device=like.device) for n in (kernel, size))
    return taps[:, None] * dilation - padding + outputs * stride
