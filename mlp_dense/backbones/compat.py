"""Workarounds for single releases of PyTorch; tests/backbones/test_upstream.py fails once they are no longer needed."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def round_up(size: int, divisor: int) -> int:
    """`size` rounded up to a multiple of `divisor`, in a form that torch.compile can simplify for symbolic sizes."""
    return (size + divisor - 1) // divisor * divisor


def pad_right_bottom(x: Tensor, height: int, width: int) -> Tensor:
    """Zero-pads (B, C, H, W) at the right and the bottom to the given size."""
    if not torch.compiler.is_compiling() and (height, width) == tuple(x.shape[-2:]):
        return x  # not in compiled code, which must hold for all sizes
    return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))


class Conv(nn.Conv2d):
    """A convolution that compiles for all sizes: on the output size of a padded one, inductor of PyTorch 2.13 fails
    (https://github.com/pytorch/pytorch/issues/188422)."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            return super().forward(x)
        (kernel, _), (stride, _), (padding, _) = self.kernel_size, self.stride, self.padding
        bottom, right = (
            round_up(size + 2 * padding - kernel + 1, stride) - stride + kernel - padding - size
            for size in x.shape[-2:]
        )
        x = F.pad(x, (padding, right, padding, bottom)).contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, self.weight, self.bias, stride)


def group_norm_input(x: Tensor) -> Tensor:
    """`x`, (B, C, H, W), in memory that GroupNorm's backward pass takes: behind frozen stages PyTorch 2.13 crashes on
    the CPU, whose channels_last kernel (https://github.com/pytorch/pytorch/pull/89485) writes a gradient of `x` that
    nobody asked for."""
    return x.contiguous() if torch.is_grad_enabled() and not x.requires_grad else x
