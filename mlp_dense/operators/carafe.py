"""CARAFE (https://arxiv.org/abs/1905.02188): upsampling with a kernel for each output pixel."""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import full_precision


def carafe(features: Tensor, masks: Tensor, kernel_size: int, group_size: int, scale_factor: int) -> Tensor:
    """Upsample features (N, C, H, W) to (N, C, H * scale, W * scale) in their dtype, computed at least in float32.

    `masks` (N, groups * kernel * kernel, H * scale, W * scale) are the kernels. Each is applied to the window around
    the input pixel below the output pixel, with zeros outside of the features.
    """
    batch, channels, height, width = features.shape
    padded = F.pad(full_precision(features), [kernel_size // 2] * 4).unflatten(1, (group_size, channels // group_size))
    size = height, scale_factor, width, scale_factor
    kernels = full_precision(masks).reshape(batch, group_size, 1, kernel_size * kernel_size, *size)
    output = padded.new_zeros(*padded.shape[:3], *size)
    for tap in range(kernel_size * kernel_size):  # no copy of all windows, which would be kernel_size^2 times as large
        row, column = divmod(tap, kernel_size)
        window = padded[..., row : row + height, column : column + width]
        output = torch.addcmul(output, window[..., :, None, :, None], kernels[:, :, :, tap])
    return output.reshape(batch, channels, height * scale_factor, width * scale_factor).to(features.dtype)
