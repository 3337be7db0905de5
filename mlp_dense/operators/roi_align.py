"""RoIAlign (Mask R-CNN, https://arxiv.org/abs/1703.06870, section 3): the mean or maximum of samples of each bin."""

from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from operator import itemgetter

import torch
import torch.nn.functional as F
from torch import Tensor

from . import by_torchvision, full_precision

ENTRIES = 2**22
"""Approximate number of cells and weights, or of samples, in memory at once; a single large box may need more."""


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
    values = full_precision(maps)
    if by_torchvision(maps):
        pooled = torch.ops.torchvision.roi_align(values, rois.to(values.dtype), scale, *size, ratio, aligned)
        return pooled.to(maps.dtype)
    rows = values.permute(0, 2, 3, 1).flatten(0, 2)
    output = rows.new_zeros(len(rois), size[0] * size[1], maps.shape[1])
    for chunk in _chunks(maps.shape, rois.to(values.dtype), size, scale, ratio, aligned):
        for boxes, cells, weights in map(_weighted_cells, chunk):
            sums = F.embedding_bag(cells.flatten(0, 1), rows, per_sample_weights=weights.flatten(0, 1), mode='sum')
            output[boxes] = sums.view(len(boxes), -1, maps.shape[1])
    return output.unflatten(1, tuple(size)).permute(0, 3, 1, 2).to(maps.dtype)


def roi_align_gradient(
    gradient: Tensor, rois: Tensor, shape: Sequence[int], size: Sequence[int], scale: float, ratio: int, aligned: bool
) -> Tensor:
    """Return the gradient `shape` = (B, C, H, W) of the maps for the gradient (N, C, *size) of :func:`roi_align`."""
    values = full_precision(gradient)
    batch, channels, height, width = shape
    if by_torchvision(gradient):
        backward = torch.ops.torchvision._roi_align_backward
        mapped = backward(values.contiguous(), rois.to(values.dtype), scale, *size, *shape, ratio, aligned)
        return mapped.to(gradient.dtype)
    rows = values.permute(0, 2, 3, 1).flatten(0, 2)
    output = rows.new_zeros(batch * height * width, channels)
    bins, all_cells = (torch.arange(n, device=rows.device) for n in (size[0] * size[1], len(output)))
    for samples in _chunks(shape, rois.to(values.dtype), size, scale, ratio, aligned):
        chunk = list(map(_weighted_cells, samples))
        rows_of = ((boxes[:, None, None] * len(bins) + bins[:, None]).expand_as(cells) for boxes, cells, _ in chunk)
        sources = torch.cat([group.flatten() for group in rows_of])
        cells, weights = (torch.cat([group[i].flatten() for group in chunk]) for i in (1, 2))
        cells, order = cells.sort(stable=True)
        starts = torch.searchsorted(cells, all_cells)
        output += F.embedding_bag(sources[order], rows, starts, per_sample_weights=weights[order], mode='sum')
    return output.unflatten(0, (batch, height, width)).permute(0, 3, 1, 2).to(gradient.dtype)


def roi_align_max(
    maps: Tensor,
    rois: Tensor,
    size: Sequence[int],
    scale: float,
    ratio: int,
    aligned: bool,
    chosen: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the greatest bilinear sample in each bin of each box, (N, C, *size), and its index in the bin.

    The arguments are those of :func:`roi_align`. If the indices are given as `chosen`, return these samples. Bins
    without samples are 0.
    """
    values = full_precision(maps)
    table = values.permute(0, 2, 3, 1).flatten(0, 2)
    output = table.new_zeros(len(rois), size[0] * size[1], maps.shape[1])
    indices = torch.zeros_like(output, dtype=torch.long)
    if chosen is not None:
        indices = chosen.flatten(2).transpose(1, 2)
    for group in chain.from_iterable(_chunks(maps.shape, rois.to(values.dtype), size, scale, ratio, aligned)):
        values_of_box = output[0].numel() * group[1].shape[2] * group[3].shape[2]
        parts = [tensor.split(max(1, ENTRIES // values_of_box)) for tensor in group]
        for boxes, rows, row_weights, columns, column_weights in zip(*parts, strict=True):
            cells = rows[:, :, None, :, None, :, None] + columns[:, None, :, None, :, None, :]
            weights = row_weights[:, :, None, :, None, :, None] * column_weights[:, None, :, None, :, None, :]
            cells, weights = cells.reshape(-1, 4), weights.reshape(-1, 4)
            samples = F.embedding_bag(cells, table, per_sample_weights=weights, mode='sum')
            samples = samples.view(len(boxes), output.shape[1], -1, maps.shape[1])
            if chosen is None:
                indices[boxes] = samples.argmax(2)
            output[boxes] = samples.gather(2, indices[boxes][:, :, None]).squeeze(2)
    shape = len(rois), maps.shape[1], *size
    return output.transpose(1, 2).reshape(shape).to(maps.dtype), indices.transpose(1, 2).reshape(shape)


def neighbours(points: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Return the two cells next to each point along one axis and their weights, both (..., 2).

    Points up to one cell outside of the map are at its border. The weights of those farther outside are 0.
    """
    inside = (points >= -1) & (points <= cells)
    points = points.where(inside, 0).clamp(0, cells - 1)
    low = points.floor()
    indices = torch.stack([low, (low + 1).clamp(max=cells - 1)], -1)
    return indices.long(), torch.stack([low + 1 - points, points - low], -1) * inside[..., None]


Samples = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Boxes (n,); the first cells of the rows of their samples and weights, both (n, bins, samples, 2); columns alike."""


def _weighted_cells(samples: Samples) -> tuple[Tensor, Tensor, Tensor]:
    """Return the boxes (n,), cells and weights (n, bins, cells) of the means of all samples."""
    boxes, rows, row_weights, columns, column_weights = samples
    row_weights, column_weights = (weights / weights.shape[2] for weights in (row_weights, column_weights))
    cells = rows.flatten(2)[:, :, None, :, None] + columns.flatten(2)[:, None, :, None, :]
    weights = row_weights.flatten(2)[:, :, None, :, None] * column_weights.flatten(2)[:, None, :, None, :]
    return boxes, cells.flatten(3).flatten(1, 2), weights.flatten(3).flatten(1, 2)


def _chunks(
    shape: Sequence[int], rois: Tensor, size: Sequence[int], scale: float, ratio: int, aligned: bool
) -> Iterator[list[Samples]]:
    """Yield chunks of about ENTRIES cells: the samples of boxes, grouped by number of samples."""
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
            rows, row_weights = neighbours(_points(y1[boxes], extents[0][boxes], size[0], key[1]), height)
            columns, column_weights = neighbours(_points(x1[boxes], extents[1][boxes], size[1], key[2]), width)
            rows = (image[boxes, None, None, None] * height + rows) * width
            chunk.append((boxes, rows, row_weights, columns, column_weights))
        yield chunk


def _points(start: Tensor, extent: Tensor, bins: int, samples: int) -> Tensor:
    """Return the positions (n, bins, samples) of all samples along one axis."""
    step = (extent / bins)[:, None, None]
    bin_, sample = (torch.arange(n, dtype=start.dtype, device=start.device) for n in (bins, samples))
    return start[:, None, None] + bin_[:, None] * step + (sample + 0.5) * step / samples
