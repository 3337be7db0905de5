"""Layers that more than one family uses.

Inside the stages feature maps are (B, H, W, C), so that a linear layer over the channels is one matrix product. Norms
and convolutions take (B, C, H, W): :func:`in_nchw` calls them on the same memory.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import kernels
from ..kernels.compat import Conv, channels_last, group_norm_input, pad_right_bottom
from .fusion import fold_after, fold_before, is_foldable

MakeNorm = Callable[[int], nn.Module]  # from the number of channels


def in_nchw(module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a module for (B, C, H, W) to (B, H, W, C) without copies."""
    return module(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


@kernels.known_layer
class Pointwise(nn.Linear):
    """A linear layer over the channels of (B, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return kernels.linear(x, self.weight, self.bias)


class ChannelMLP(nn.Module):
    """Channel mixing: two linear layers with GELU between them."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.fc1 = Pointwise(dim, hidden_dim)
        self.fc2 = Pointwise(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return kernels.mlp(x, self.fc1, self.fc2)

    def fold_input_norm(self, norm: nn.Module) -> nn.Module:
        fold_before(norm, self.fc1)
        return nn.Identity()


class WeightedBranches(nn.Module):
    """The sum of three branches, weighted per channel by a softmax over the branches (arXiv 2108.13341, sec. 3).

    Its scores depend on the mean of the unweighted sum.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.fc1 = Pointwise(dim, dim // 4)
        self.fc2 = Pointwise(dim // 4, 3 * dim)

    def forward(self, a: Tensor, b: Tensor, c: Tensor, axes: tuple[int, int] = (1, 2)) -> Tensor:
        """Sum branches (..., dim); positions along `axes` share weights, and the axes after them are channels."""
        # Not x.mean(), whose gradient is a complete feature map. A CPU sums one axis after the other faster.
        dtype = torch.float32 if a.dtype == torch.float16 else a.dtype  # fp16 would overflow
        total = sum(x.sum(axes[1], True, dtype=dtype).sum(axes[0], True, dtype=dtype) for x in (a, b, c))
        mean = (total / (a.shape[axes[0]] * a.shape[axes[1]])).to(a.dtype).flatten(axes[1] + 1)
        scores = self.fc2(F.gelu(self.fc1(mean))).unflatten(-1, (-1, 3))  # branch k of channel c stands at 3c + k
        weights = scores.movedim(-1, 0).softmax(0).view(3, *total.shape)  # first, so that each is contiguous
        return (a * weights[0]).addcmul_(b, weights[1]).addcmul_(c, weights[2])


@kernels.known_layer
class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, H, W), at every position."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@kernels.known_layer
class GroupNorm1(nn.GroupNorm):
    """GroupNorm with one group: over all channels and positions of (B, C, H, W), padding included."""

    def __init__(self, dim: int, **kwargs: Any):
        super().__init__(1, dim, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(group_norm_input(x))


class ConvDownsample(nn.Sequential):
    """A strided convolution of (B, C, H, W), as a stem or between two stages; a norm may follow, and then ReLU."""

    def __init__(
        self, in_dim: int, dim: int, kernel_size: int, stride: int, norm: MakeNorm | None = None, relu: bool = False
    ):
        super().__init__()
        padding = (kernel_size - stride + 1) // 2
        self.conv = Conv(in_dim, dim, kernel_size, stride, padding)
        if norm is not None:
            self.norm = norm(dim)
        if relu:
            self.activation = nn.ReLU()
        self.smallest = kernel_size - 2 * padding  # a smaller image has no output pixel

    def forward(self, x: Tensor) -> Tensor:
        if any(size < self.smallest for size in x.shape[-2:]):
            x = pad_right_bottom(x, *(max(size, self.smallest) for size in x.shape[-2:]))
        return super().forward(channels_last(x))

    def fold_norms(self) -> None:
        if is_foldable(getattr(self, 'norm', None)):
            fold_after(self.conv, self.norm)
            self.norm = nn.Identity()


def init_linear_layers(module: nn.Module, types: tuple[type[nn.Linear | nn.Conv2d], ...]) -> None:
    """Draw truncated normal weights (std 0.02) and zero biases for every layer of the given types."""
    for layer in module.modules():
        if isinstance(layer, types):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
