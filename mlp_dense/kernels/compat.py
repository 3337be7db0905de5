"""Workarounds for releases and devices of PyTorch, and code that torch.compile traces differently.

``tests/kernels/test_upstream.py`` fails once a workaround for a defect is no longer needed.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .dispatch import is_transformed


def round_up(size: int, divisor: int) -> int:
    """Round `size` up to a multiple of `divisor`, in a form that torch.compile simplifies for symbolic sizes."""
    return (size + divisor - 1) // divisor * divisor


def sizes_match(sizes: Sequence[int], others: Sequence[int]) -> bool:
    """Whether sizes are equal. False while torch.compile traces, because compiled code holds for all sizes."""
    return not torch.compiler.is_compiling() and tuple(sizes) == tuple(others)


def pad_right_bottom(x: Tensor, height: int, width: int) -> Tensor:
    """Zero-pad (B, C, H, W) at the right and the bottom to the given size."""
    if sizes_match((height, width), x.shape[-2:]):
        return x
    return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))


def crop(x: Tensor, height: int, width: int) -> Tensor:
    """Crop (B, C, H, W) at the right and the bottom to the given size."""
    if torch.compiler.is_compiling():  # a view would be compiled again for sizes that need no cropping
        rows, columns = (torch.arange(side, device=x.device) for side in (height, width))
        return x.index_select(2, rows).index_select(3, columns)
    return x[:, :, :height, :width]


def channels_last(x: Tensor) -> Tensor:
    """Return (B, C, H, W) in channels_last memory, except in torch.func.vmap, which does not support the query."""
    return x if is_transformed() else x.contiguous(memory_format=torch.channels_last)


def resampling_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of resampling weights; float32, for MPS, loses the sixth digit."""
    return torch.float32 if x.device.type == 'mps' else torch.float64


def precise_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a linear layer in float32 at least, also inside autocast regions."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
        return F.linear(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))


def recompute(function: nn.Module, x: Tensor, context: Callable[[], AbstractContextManager]) -> Tensor:
    """Call `function` without storing activations; the backward pass calls it again inside `context()`."""
    if torch.compiler.is_compiling():  # which traces the recomputation itself and does not support context_fn
        return checkpoint(function, x, use_reentrant=False)
    return checkpoint(function, x, use_reentrant=False, context_fn=lambda: (nullcontext(), context()))


class Conv(nn.Conv2d):
    """A convolution that compiles for all sizes, and is finite for all of them in bf16.

    Inductor of PyTorch 2.13 fails on the output size of a padded one (https://github.com/pytorch/pytorch/issues/188422).
    In bf16 on a CPU, oneDNN reads uninitialized memory if the output is one pixel wide.
    """

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
        if not torch.compiler.is_compiling():
            if x.dtype == torch.bfloat16 and x.device.type == 'cpu' and x.shape[3] + 2 * padding < kernel + stride:
                bias = None if self.bias is None else self.bias.float()
                return self._conv_forward(x.float(), self.weight.float(), bias).to(x.dtype)
            return super().forward(x)
        bottom, right = (
            round_up(size + 2 * padding - kernel + 1, stride) - stride + kernel - padding - size
            for size in x.shape[-2:]
        )
        x = F.pad(x, (padding, right, padding, bottom)).contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, self.weight, self.bias, stride)


def group_norm_input(x: Tensor) -> Tensor:
    """Return (B, C, H, W) in memory that GroupNorm's backward pass accepts.

    Behind frozen stages the channels_last kernel of PyTorch 2.13 crashes on a CPU: it writes a gradient of `x` that is
    not needed (https://github.com/pytorch/pytorch/pull/89485). Forward-mode differentiation needs contiguous memory.
    """
    needs_copy = torch.is_grad_enabled() and not x.requires_grad
    return x.contiguous() if needs_copy or torch.autograd.forward_ad._current_level >= 0 else x
