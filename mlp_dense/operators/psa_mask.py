"""Attention maps of PSANet (https://hszhao.github.io/papers/eccv18_psanet.pdf)."""

from collections.abc import Sequence

import torch
from torch import Tensor


def psa_mask(masks: Tensor, mask_size: Sequence[int], distribute: bool) -> Tensor:
    """Place the mask of each pixel around this pixel in a map of all pixels, (N, H * W, H, W).

    `masks` (N, mask height * mask width, H, W) are the weights around each pixel; those outside of the map are dropped.
    To collect, the value at (n, target, y, x) is the weight of a target for pixel (y, x). To `distribute`, the value at
    (n, pixel, y, x) is the weight of target (y, x) for a pixel.
    """
    batch, _, height, width = masks.shape
    weights = masks.reshape(batch, *mask_size, height, width)
    y, x = (torch.arange(n, device=masks.device) for n in (height, width))
    rows, columns = (p[:, None] - p + (n - 1) // 2 for p, n in zip((y, x), mask_size, strict=True))  # (target, pixel)
    inside = ((rows >= 0) & (rows < mask_size[0]))[:, None, :, None]
    inside = inside & ((columns >= 0) & (columns < mask_size[1]))[:, None, :]
    rows, columns = rows.clamp(0, mask_size[0] - 1), columns.clamp(0, mask_size[1] - 1)
    collected = weights[:, rows[:, None, :, None], columns[:, None, :], y[:, None], x].where(inside, 0)
    order = (0, 3, 4, 1, 2) if distribute else (0, 1, 2, 3, 4)
    return collected.permute(order).reshape(batch, height * width, height, width)
