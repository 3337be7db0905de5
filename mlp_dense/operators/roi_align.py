"""RoIAlign (Mask R-CNN, https://arxiv.org/abs/1703.06870, section 3): each bin is a weighted sum of cells."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter

import torch
import torch.nn.functional as F
from torch import Tensor

from . import by_torchvision

ENTRIES = 2**22
"""Approximate number of cells and weights in memory at once; a single large box may need more."""


def roi_align(maps: Tensor, rois: Tensor, size: Sequence[int], scale: float, ratio: int, aligned: bool) -> Tensor:
    """Return the mean of bilinear samples in each bin of each box, (N, C, *size) in the dtype of the maps.

    Args:
        maps: (B, C, H, W). Half-precision maps are computed in float32.
        rois: (N, 5), the index of an image in the batch and x1, y1, x2, y2.
        size: Bins of a box, (rows, columns).
        scale: Cells of a map per unit of a box.
        ratio: Samples of a bin along each axis; 0 uses one sample per cell of the bin.
        aligned: Whether the centre of the first cell is at 0.5, as in mmdet 2 and later. Otherwise it is at 0, and
            boxes smaller than a cell are enlarged to one cell.
    """
    values = _full_precision(maps)
    if by_torchvision(maps):
        pooled = torch.ops.torchvision.roi_align(values, rois.to(values.dtype), scale, *size, ratio, aligned)
        return pooled.to(maps.dtype)
    rows = values.permute(0, 2, 3, 1).flatten(0, 2)
    output = rows.new_zeros(len(rois), size[0] * size[1], maps.shape[1])
    for chunk in _weighted_cells(maps.shape, rois.to(values.dtype), size, scale, ratio, aligned):
        for boxes, cells, weights in chunk:
            sums = F.embedding_bag(cells.flatten(0, 1), rows, per_sample_weights=weights.flatten(0, 1), mode='sum')
            output[boxes] = sums.view(len(boxes), -1, maps.shape[1])
    return output.unflatten(1, tuple(size)).permute(0, 3, 1, 2).to(maps.dtype)


def roi_align_gradient(
    gradient: Tensor, rois: Tensor, shape: Sequence[int], size: Sequence[int], scale: float, ratio: int, aligned: bool
) -> Tensor:
    """Return the gradient `shape` = (B, C, H, W) of the maps for the gradient (N, C, *size) of :func:`roi_align`."""
    values = _full_precision(gradient)
    batch, channels, height, width = shape
    if by_torchvision(gradient):
        backward = torch.ops.torchvision._roi_align_backward
        mapped = backward(values.contiguous(), rois.to(values.dtype), scale, *size, *shape, ratio, aligned)
        return mapped.to(gradient.dtype)
    rows = values.permute(0, 2, 3, 1).flatten(0, 2)
    output = rows.new_zeros(batch * height * width, channels)
    bins, all_cells = (torch.arange(n, device=rows.device) for n in (size[0] * size[1], len(output)))
    for chunk in _weighted_cells(shape, rois.to(values.dtype), size, scale, ratio, aligned):
        rows_of = ((boxes[:, None, None] * len(bins) + bins[:, None]).expand_as(cells) for boxes, cells, _ in chunk)
        sources = torch.cat([group.flatten() for group in rows_of])
        cells, weights = (torch.cat([group[i].flatten() for group in chunk]) for i in (1, 2))
        cells, order = cells.sort(stable=True)
        starts = torch.searchsorted(cells, all_cells)
        output += F.embedding_bag(sources[order], rows, starts, per_sample_weights=weights[order], mode='sum')
    return output.unflatten(0, (batch, height, width)).permute(0, 3, 1, 2).to(gradient.dtype)


def _full_precision(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _weighted_cells(
    shape: Sequence[int], rois: Tensor, size: Sequence[int], scale: float, ratio: int, aligned: bool
) -> Iterator[list[tuple[Tensor, Tensor, Tensor]]]:
    """Yield chunks of about ENTRIES: boxes (n,), cells and weights (n, bins, cells), grouped by number of samples."""
    _, _, height, width = shape
    scale = torch.tensor(scale).item()  # rounded to float32, as in mmcv's signature
    image = rois[:, 0].long()
    x1, y1, x2, y2 = (rois[:, 1:] * scale - 0.5 * aligned).unbind(1)
    extents = [y2 - y1, x2 - x1] if aligned else [(y2 - y1).clamp(min=1), (x2 - x1).clamp(min=1)]
    samples = [torch.full_like(image, ratio) for _ in size]
    if ratio <= 0:  # boxes that are empty or not finite have no samples
        samples = [(d / n).ceil().nan_to_num(0, 0, 0).clamp(min=0).long() for d, n in zip(extents, size, strict=True)]
    chunks = (4 * size[0] * size[1] * samples[0] * samples[1]).cumsum(0) // ENTRIES
    keys = torch.stack([chunks, *samples], 1)  # (chunk, samples of a row, samples of a column) of each box
    present = [key for key in keys.unique(dim=0).tolist() if key[1] and key[2]]
    for _, keys_of_chunk in groupby(present, itemgetter(0)):
        chunk = []
        for key in keys_of_chunk:
            boxes = (keys == keys.new_tensor(key)).all(1).nonzero().squeeze(1)
            rows, row_weights = _axis(y1[boxes], extents[0][boxes], size[0], key[1], height)
            columns, column_weights = _axis(x1[boxes], extents[1][boxes], size[1], key[2], width)
            rows = (image[boxes, None, None] * height + rows) * width
            cells = rows[:, :, None, :, None] + columns[:, None, :, None, :]
            weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
            chunk.append((boxes, cells.flatten(3).flatten(1, 2), weights.flatten(3).flatten(1, 2)))
        yield chunk


def _axis(start: Tensor, extent: Tensor, bins: int, samples: int, cells: int) -> tuple[Tensor, Tensor]:
    """Return the cells of all samples along one axis and their weights, both (n, bins, 2 * samples)."""
    step = (extent / bins)[:, None, None]
    bin_, sample = (torch.arange(n, dtype=start.dtype, device=start.device) for n in (bins, samples))
    points = start[:, None, None] + bin_[:, None] * step + (sample + 0.5) * step / samples
    inside = (points >= -1) & (points <= cells)  # samples more than one cell outside of the map are 0
    points = points.where(inside, 0).clamp(0, cells - 1)
    low = points.floor()
    indices = torch.stack([low, (low + 1).clamp(max=cells - 1)], -1)
    weights = torch.stack([low + 1 - points, points - low], -1) * inside[..., None] / samples
    return indices.long().flatten(2), weights.flatten(2)
