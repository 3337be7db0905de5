"""Columns of a convolution that is computed at a part of its positions only (Guided Anchoring, arXiv 1901.03278)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_im2col(
    features: Tensor, rows: Tensor, columns: Tensor, kernel: Sequence[int], padding: Sequence[int]
) -> Tensor:
    """Return the windows (C * kernel height * kernel width, M) of features (1, C, H, W) for M output positions."""
    # the last windows may end beyond the padding
    padded = F.pad(features[0], (padding[1], kernel[1] - 1, padding[0], kernel[0] - 1))
    taps_y, taps_x = (torch.arange(n, device=features.device) for n in kernel)
    return padded[:, rows + taps_y[:, None, None], columns + taps_x[:, None]].flatten(0, 2)


def masked_col2im(values: Tensor, rows: Tensor, columns: Tensor, size: Sequence[int]) -> Tensor:
    """Return a map (1, C, *size) with values (C, M) at M positions, and zeros elsewhere."""
    output = values.new_zeros(len(values), *size)
    channels = torch.arange(len(values), device=values.device)[:, None]
    return output.index_put((channels, rows, columns), values)[None]
