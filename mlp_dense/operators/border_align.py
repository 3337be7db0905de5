"""BorderAlign (https://arxiv.org/abs/2007.11056): the greatest of the samples along each border of a box."""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import full_precision
from .roi_align import neighbours


def border_align(maps: Tensor, boxes: Tensor, pool_size: int, chosen: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the greatest bilinear sample of each border of each box, (B, C, N, 4), and its index.

    Args:
        maps: (B, 4 * C, H, W): C channels each for the top, left, bottom and right border.
        boxes: (B, N, 4), x1, y1, x2, y2 in cells; those of an image are applied to its map.
        pool_size: Distances between samples along a border, one fewer than samples.
        chosen: Indices of samples to return instead of the greatest ones.
    """
    batch, channels, height, width = maps.shape
    values = full_precision(maps).unflatten(1, (4, channels // 4))
    table = values.permute(0, 1, 3, 4, 2).reshape(-1, channels // 4)
    corners = boxes.to(table.dtype)
    step = (corners[..., 2:] - corners[..., :2]) / pool_size
    steps = torch.arange(pool_size + 1, dtype=step.dtype, device=maps.device)
    along_x, along_y = (step[..., axis, None] * steps for axis in (0, 1))  # (B, N, samples)
    x1, y1, x2, y2 = (corner[..., None].expand_as(along_x) for corner in corners.unbind(2))
    rows, row_weights = neighbours(torch.stack([y1, y1 + along_y, y2, y2 - along_y], 1), height)
    columns, column_weights = neighbours(torch.stack([x1 + along_x, x1, x2 - along_x, x2], 1), width)
    planes = torch.arange(batch * 4, device=maps.device).view(batch, 4, 1, 1, 1)
    cells = ((planes * height + rows) * width)[..., :, None] + columns[..., None, :]
    weights = row_weights[..., :, None] * column_weights[..., None, :]
    samples = F.embedding_bag(cells.reshape(-1, 4), table, per_sample_weights=weights.reshape(-1, 4), mode='sum')
    samples = samples.view(batch, 4, boxes.shape[1], pool_size + 1, channels // 4)
    indices = samples.argmax(3) if chosen is None else chosen.permute(0, 3, 2, 1)
    output = samples.gather(3, indices[:, :, :, None]).squeeze(3)
    return output.permute(0, 3, 2, 1).to(maps.dtype), indices.permute(0, 3, 2, 1)
