"""RoIAlign (Mask R-CNN, https://arxiv.org/abs/1703.06870, section 3): each bin is a weighted sum of cells."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter

import torch
import torch.nn.functional as F
from torch import Tensor

from .torchvision import by_torchvision

ENTRIES = 2**22
"""How many cells with their weights are in memory at once, but those of one box at least."""


def roi_align(maps: Tensor, rois: Tensor, size: Sequence[int], scale: float, ratio: int, aligned: bool) -> Tensor:
    """The mean of bilinear samples in each bin of each box.

    Args:
        maps: (B, C, H, W).
        rois: (N, 5), the index of an image in the batch and x1, y1, x2, y2.
        size: bins of a box, (rows, columns).
        scale: cells of a map per unit of a box.
        ratio: samples of a bin along each axis; 0 takes as many as the bin has cells.
        aligned: the centre of the first cell is at a half, as in mmdet 2 and later; else at 0, and boxes smaller than a
            cell are taken for one.

    Returns:
        (N, C, *size), in the type of the maps; of half types the computation is in float32.
    """
    values = _exact(maps)
    if by_torchvision(maps):
        pooled = torch.ops.torchvision.roi_align(values, rois.to(values.dtype), scale, *size, ratio, aligned)
        return pooled.to(maps.dtype)
    rows = values.permute(0, 2, 3, 1).flatten(0, 2)
    output = rows.new_zeros(len(rois), size[0] * size[1], maps.shape[1])
    for part in _weighted_cells(maps.shape, rois.to(values.dtype), size, scale, ratio, aligned):
        for boxes, cells, weights in part:
            sums = F.embedding_bag(cells.flatten(0, 1), rows, per_sample_weights=weights.flatten(0, 1), mode='sum')
            output[boxes] = sums.view(len(boxes), -1, maps.shape[1])
    return output.unflatten(1, tuple(size)).permute(0, 3, 1, 2).to(maps.dtype)


def roi_align_gradient(
    gradient: Tensor, rois: Tensor, shape: Sequence[int], size: Sequence[int], scale: float, ratio: int, aligned: bool
) -> Tensor:
    """The gradient (B, C, H, W) = `shape` of the maps for that of the output of :func:`roi_align`, (N, C, *size)."""
    values = _exact(gradient)
    batch, channels, height, width = shape
    if by_torchvision(gradient):
        backward = torch.ops.torchvision._roi_align_backward
        mapped = backward(values.contiguous(), rois.to(values.dtype), scale, *size, *shape, ratio, aligned)
        return mapped.to(gradient.dtype)
    rows = values.permute(0, 2, 3, 1).flatten(0, 2)
    output = rows.new_zeros(batch * height * width, channels)
    bins, all_cells = (torch.arange(n, device=rows.device) for n in (size[0] * size[1], len(output)))
    for part in _weighted_cells(shape, rois.to(values.dtype), size, scale, ratio, aligned):
        sources = [(boxes[:, None, None] * len(bins) + bins[:, None]).expand_as(cells) for boxes, cells, _ in part]
        cells, weights = (torch.cat([group[i].flatten() for group in part]) for i in (1, 2))
        cells, order = cells.sort(stable=True)
        sources = torch.cat([each.flatten() for each in sources])[order]
        starts = torch.searchsorted(cells, all_cells)
        output += F.embedding_bag(sources, rows, starts, per_sample_weights=weights[order], mode='sum')
    return output.unflatten(0, (batch, height, width)).permute(0, 3, 1, 2).to(gradient.dtype)


def _exact(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _weighted_cells(
    shape: Sequence[int], rois: Tensor, size: Sequence[int], scale: float, ratio: int, aligned: bool
) -> Iterator[list[tuple[Tensor, Tensor, Tensor]]]:
    """What to add for each bin, in parts of at most ENTRIES, each of groups with equally many samples: the indices of n
    boxes (n,), and (n, bins, cells of a bin) indices into all cells of a batch and their weights."""
    _, _, height, width = shape
    scale = torch.tensor(scale).item()  # rounded to float32, as in mmcv's signature
    image = rois[:, 0].long()
    x1, y1, x2, y2 = (rois[:, 1:] * scale - 0.5 * aligned).unbind(1)
    extents = [y2 - y1, x2 - x1] if aligned else [(y2 - y1).clamp(min=1), (x2 - x1).clamp(min=1)]
    samples = [torch.full_like(image, ratio) for _ in size]
    if ratio <= 0:  # boxes without extent, or not finite, have none
        samples = [(d / n).ceil().nan_to_num(0, 0, 0).clamp(min=0).long() for d, n in zip(extents, size, strict=True)]
    parts = (4 * size[0] * size[1] * samples[0] * samples[1]).cumsum(0) // ENTRIES
    kinds = torch.stack([parts, *samples], 1)
    present = [kind for kind in kinds.unique(dim=0).tolist() if kind[1] and kind[2]]
    for _, group in groupby(present, itemgetter(0)):
        part = []
        for kind in group:
            boxes = (kinds == kinds.new_tensor(kind)).all(1).nonzero().squeeze(1)
            rows, by_row = _axis(y1[boxes], extents[0][boxes], size[0], kind[1], height)
            columns, by_column = _axis(x1[boxes], extents[1][boxes], size[1], kind[2], width)
            rows = (image[boxes, None, None] * height + rows) * width
            cells = rows[:, :, None, :, None] + columns[:, None, :, None, :]
            weights = by_row[:, :, None, :, None] * by_column[:, None, :, None, :]
            part.append((boxes, cells.flatten(3).flatten(1, 2), weights.flatten(3).flatten(1, 2)))
        yield part


def _axis(start: Tensor, extent: Tensor, bins: int, samples: int, cells: int) -> tuple[Tensor, Tensor]:
    """(n, bins, 2 * samples) indices of cells along one axis, and their weights in the mean of linear samples.

    Args:
        start, extent: (n,), of the boxes, in cells.
        cells: of the map; samples more than one cell outside are 0.
    """
    step = (extent / bins)[:, None, None]
    bin_, sample = (torch.arange(n, dtype=start.dtype, device=start.device) for n in (bins, samples))
    points = start[:, None, None] + bin_[:, None] * step + (sample + 0.5) * step / samples
    inside = (points >= -1) & (points <= cells)
    points = points.where(inside, 0).clamp(0, cells - 1)
    low = points.floor()
    indices = torch.stack([low, (low + 1).clamp(max=cells - 1)], -1)
    weights = torch.stack([low + 1 - points, points - low], -1) * inside[..., None] / samples
    return indices.long().flatten(2), weights.flatten(2)
