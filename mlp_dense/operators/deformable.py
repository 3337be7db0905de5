"""Deformable convolution (https://arxiv.org/abs/1811.11168), as mmcv's layers call it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from . import full_precision, has_torchvision

Pair = Sequence[int]
NARROW = 16
"""Number of channels in a group from which on sums of table rows are faster than F.grid_sample."""


def deform_conv2d(
    x: Tensor, offset: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair, mask: Tensor | None = None
) -> Tensor:
    """Convolve an input (B, C, H, W) to (B, D, H', W'), sampled at shifted positions of the kernel, without a bias.

    `offset` (B, 2 * G * k, H', W') is dy and dx of the k positions of the kernel for G groups of channels, `mask`
    (B, G * k, H', W') factors of the samples, and `weight` (D, C / groups, kernel height, kernel width). `stride`,
    `padding` and `dilation` are (vertical, horizontal).

    Samples are bilinear between cells. The slope at a whole position is the one towards larger positions. At -1, H, W
    and beyond, samples and slopes are zero.
    """
    batch, channels = x.shape[:2]
    (rows, columns), (out_height, out_width) = weight.shape[2:], offset.shape[2:]
    taps = rows * columns
    offset_groups = offset.shape[1] // (2 * taps)
    shifts = full_precision(offset).reshape(batch, offset_groups, rows, columns, 2, out_height, out_width)
    dy, dx = shifts.unbind(4)
    y = dy + _positions(rows, out_height, stride[0], padding[0], dilation[0], dy)[:, None, :, None]
    x_ = dx + _positions(columns, out_width, stride[1], padding[1], dilation[1], dx)[:, None]
    if x.is_cuda and has_torchvision('cuda'):
        from torchvision.ops import deform_conv2d

        border = torch.stack([y == -1, x_ == -1], 4).view_as(offset)  # torchvision has a slope there
        offset = offset - border.to(offset.dtype)
        return deform_conv2d(x, offset, weight, None, tuple(stride), tuple(padding), tuple(dilation), mask)
    points = [y, x_] if mask is None else [y, x_, mask]
    points = [p.reshape(batch, offset_groups, taps, out_height, out_width).permute(0, 3, 4, 2, 1) for p in points]
    depth, groups = weight.shape[1], channels // weight.shape[1]
    samples = _samples(x, *points).to(weight.dtype).view(-1, taps, groups, depth).permute(2, 0, 1, 3).flatten(2)
    weight = weight.reshape(groups, -1, depth, taps).permute(0, 3, 2, 1).flatten(1, 2)
    output = (samples @ weight).unflatten(1, (batch, out_height, out_width))
    return output.permute(1, 0, 4, 2, 3).flatten(1, 2)


def _positions(kernel: int, size: int, stride: int, padding: int, dilation: int, like: Tensor) -> Tensor:
    """Return the positions (kernel, size) of the input along one axis."""
    taps, outputs = (torch.arange(n, dtype=like.dtype, device=like.device) for n in (kernel, size))
    return taps[:, None] * dilation - padding + outputs * stride


def _samples(images: Tensor, y: Tensor, x: Tensor, factors: Tensor | None = None) -> Tensor:
    """Return samples (B * H' * W' * k * G, C / G) of images (B, C, H, W) at points (B, H', W', k, G), times factors.

    F.grid_sample rounds the points to its own units, so that some whole positions have the slope of their other side.
    Narrow groups use it if the points need no gradient.
    """
    batch, channels, height, width = images.shape
    groups = y.shape[-1]
    if channels // groups < NARROW and not (torch.is_grad_enabled() and (y.requires_grad or x.requires_grad)):
        points = [p.nan_to_num(-1).clamp(-1, size) for p, size in ((x, width), (y, height))]  # at the ends all is zero
        grid = torch.stack([(2 * p + 1) / size - 1 for p, size in zip(points, (width, height), strict=True)], -1)
        maps = full_precision(images).reshape(batch * groups, -1, height, width)
        samples = F.grid_sample(maps, _by_group(grid).flatten(0, 1)[:, None], align_corners=False)
        samples = samples.view(batch, groups, -1, samples.shape[-1])
        samples = samples if factors is None else samples * _by_group(factors)[:, :, None]
        return samples.permute(0, 3, 1, 2).reshape(-1, channels // groups)
    (rows, row_weights), (columns, column_weights) = _neighbours(y, height), _neighbours(x, width)
    weights = row_weights[..., :, None] * column_weights[..., None, :]
    if factors is not None:
        weights = weights * factors[..., None, None]
    image, group = (torch.arange(n, dtype=rows.dtype, device=rows.device) for n in (batch, groups))
    rows = rows + height * image.view(-1, 1, 1, 1, 1, 1)
    cells = (rows[..., :, None] * width + columns[..., None, :]) * groups + group[:, None, None]
    table = full_precision(images).permute(0, 2, 3, 1).reshape(-1, channels // groups)
    return F.embedding_bag(cells.view(-1, 4), table, per_sample_weights=weights.reshape(-1, 4), mode='sum')


def _by_group(values: Tensor) -> Tensor:
    """Return values (B, H', W', k, G, ...) as (B, G, H' * W' * k, ...)."""
    return values.flatten(1, 3).movedim(2, 1)


def _neighbours(points: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the two cells next to each point along one axis and their weights, which are 0 outside, both (..., 2)."""
    low = points.detach().floor()
    cells = torch.stack([low, low + 1], -1)
    weights = torch.stack([1 - (points - low), points - low], -1)
    inside = (cells >= 0) & (cells < size) & ((points > -1) & (points < size))[..., None]
    return cells.where(inside, 0).int(), weights.where(inside, 0)
