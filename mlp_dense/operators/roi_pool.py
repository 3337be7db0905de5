"""RoIPool (Fast R-CNN, https://arxiv.org/abs/1504.08083): the maximum of the cells in each bin of a box."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import full_precision


def roi_pool(maps: Tensor, rois: Tensor, size: Sequence[int], scale: float) -> Tensor:
    """Return the maximum of the cells in each bin of each box, (N, C, *size). Empty bins are 0.

    Args:
        maps: (B, C, H, W).
        rois: (N, 5), the index of an image in the batch and x1, y1, x2, y2; the last two are included in the box.
        size: Bins of a box, (rows, columns).
        scale: Cells of a map per unit of a box.
    """
    return values_of(maps, rois, roi_pool_cells(maps, rois, size, scale))


def roi_pool_cells(maps: Tensor, rois: Tensor, size: Sequence[int], scale: float) -> Tensor:
    """Return the index row * W + column of the first greatest cell in each bin, -1 if the bin is empty."""
    _, channels, height, width = maps.shape
    image, boxes = rois[:, 0].long(), full_precision(rois[:, 1:])
    scale = torch.tensor(scale).item()  # rounded to float32, as in mmcv's signature
    start, end = boxes[:, :2] * scale, (boxes[:, 2:] + 1) * scale
    valid = (end > start).all(1)
    limits = []
    for axis, bins, limit in ((1, size[0], height), (0, size[1], width)):
        edges = torch.arange(bins + 1, dtype=boxes.dtype, device=boxes.device)
        edges = edges * ((end - start)[:, axis] / bins)[:, None] + start[:, axis, None]
        first, last = edges[:, :-1].floor(), edges[:, 1:].ceil()
        limits.append([edge.nan_to_num(0).clamp(0, limit).long() for edge in (first, last)])
    (top, bottom), (left, right) = limits
    heights, widths = (bottom - top)[:, :, None], (right - left)[:, None]  # (N, rows, 1), (N, 1, columns)
    counts = (heights.clamp(min=0) * widths.clamp(min=0) * valid[:, None, None]).flatten()
    ends = counts.cumsum(0)
    bin_ = torch.repeat_interleave(counts)  # of each cell
    cell = torch.arange(len(bin_), device=maps.device) - (ends - counts)[bin_]  # within its bin
    widths, top, left = (
        tensor.expand(-1, *size).flatten()[bin_] for tensor in (widths, top[:, :, None], left[:, None])
    )
    cells = (top + cell // widths) * width + left + cell % widths
    rows = image[bin_ // (size[0] * size[1])] * height * width + cells
    table = full_precision(maps).detach().permute(0, 2, 3, 1).reshape(-1, channels)
    *_, greatest = torch.embedding_bag(table, rows, ends - counts, mode=2)
    greatest = (
        greatest.view(len(rois), size[0] * size[1], channels).transpose(1, 2) - (image * height * width)[:, None, None]
    )
    return greatest.where((counts > 0).view(len(rois), 1, size[0] * size[1]), -1).unflatten(2, tuple(size))


def values_of(maps: Tensor, rois: Tensor, cells: Tensor) -> Tensor:
    """Return the values (N, C, *size) of cells of the maps, 0 for the cell -1."""
    _, channels, height, width = maps.shape
    planes = rois[:, :1].long() * channels + torch.arange(channels, device=maps.device)
    values = maps.reshape(-1)[planes[:, :, None, None] * (height * width) + cells.clamp(min=0)]
    return values.where(cells >= 0, 0)
