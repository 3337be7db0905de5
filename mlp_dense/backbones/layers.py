"""Layers, blocks and stages that more than one family uses.

Inside the stages feature maps are (B, H, W, C), so that a linear layer over the channels is one matrix product. Norms
and convolutions take (B, C, H, W): :func:`in_nchw` calls them on the same memory.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .. import kernels
from ..kernels.compat import (
    Conv,
    channels_last,
    group_norm_input,
    pad_right_bottom,
    recompute,
    resampling_dtype,
    round_up,
)
from .fusion import fold_after, fold_before

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
        return fold_before(norm, self.fc1)


class WeightedBranches(nn.Module):
    """Three branches, summed with weights per channel that depend on their mean (arXiv 2108.13341, sec. 3)."""

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
        weights = scores.movedim(-1, 0).softmax(0).view(3, *total.shape)  # branches first: contiguous weights
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
        self.norm = norm(dim) if norm else nn.Identity()
        self.activation = nn.ReLU() if relu else nn.Identity()
        self.smallest = kernel_size - 2 * padding  # a smaller image has no output pixel

    def forward(self, x: Tensor) -> Tensor:
        if any(size < self.smallest for size in x.shape[-2:]):
            x = pad_right_bottom(x, *(max(size, self.smallest) for size in x.shape[-2:]))
        return super().forward(channels_last(x))

    def fold_norms(self) -> None:
        self.norm = fold_after(self.conv, self.norm)


class PatchStem(ConvDownsample):
    """A vector for each patch of images, zero-padded to a multiple of `multiple`; `shrink` then resizes them by 7/8."""

    def __init__(
        self, in_dim: int, dim: int, patch_size: int, multiple: int, norm: MakeNorm | None = None, shrink: bool = False
    ):
        super().__init__(in_dim, dim, patch_size, patch_size, norm)
        self.multiple, self.shrink = multiple, shrink

    def forward(self, x: Tensor) -> Tensor:
        height, width = (round_up(side, self.multiple) for side in x.shape[-2:])
        x = pad_right_bottom(x, height, width)
        if self.shrink:
            x = self.shrunk(x, height // 8 * 7, width // 8 * 7)
        return super().forward(x)

    def shrunk(self, x: Tensor, height: int, width: int) -> Tensor:
        """Resize images (B, C, H, W) to a smaller size."""
        precise = x.to(resampling_dtype(x))
        return F.interpolate(precise, (height, width), mode='bilinear', antialias=True).to(x.dtype)


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): in training, an image skips the residual branch with probability `rate`."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        return x * x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(keep).div_(keep)


class Block(nn.Module):
    """Token mixing, then channel mixing, of (B, H, W, dim), each after a norm and inside a residual connection."""

    def __init__(self, dim: int, token_mixing: nn.Module, channel_mixing: nn.Module, norm: MakeNorm, drop_path: float):
        super().__init__()
        self.norm1 = norm(dim)
        self.token_mixing = token_mixing
        self.norm2 = norm(dim)
        self.channel_mixing = channel_mixing
        self.drop_path: nn.Module = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.token_mixing(in_nchw(self.norm1, x)))
        return x + self.drop_path(self.channel_mixing(in_nchw(self.norm2, x)))

    def fold_norms(self) -> None:
        self.drop_path = nn.Identity()
        if hasattr(self.token_mixing, 'fold_input_norm'):
            self.norm1 = self.token_mixing.fold_input_norm(self.norm1)
        if hasattr(self.channel_mixing, 'fold_input_norm'):
            self.norm2 = self.channel_mixing.fold_input_norm(self.norm2)


class Stage(nn.Module):
    """A downsampling of (B, C, H, W) (the identity in the first stage), then blocks, which take (B, H, W, C)."""

    def __init__(self, downsample: nn.Module, blocks: Sequence[nn.Module], with_cp: bool):
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        x = channels_last(self.downsample(x)).permute(0, 2, 3, 1)
        for block in self.blocks:
            if self.with_cp and torch.is_grad_enabled():
                x = recompute(block, x, partial(_running_statistics_kept, block))
            else:
                x = block(x)
        return x.permute(0, 3, 1, 2)


@contextmanager
def _running_statistics_kept(block: nn.Module) -> Iterator[None]:
    """Keep the second forward pass of activation checkpointing from updating running statistics a second time."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, num_batches_tracked) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(num_batches_tracked)


def init_linear_layers(module: nn.Module, types: tuple[type[nn.Linear | nn.Conv2d], ...]) -> None:
    """Draw truncated normal weights (std 0.02) and zero biases for every layer of the given types."""
    for layer in module.modules():
        if isinstance(layer, types):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
