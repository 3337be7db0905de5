"""What leaves the stages of a backbone."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.modules.batchnorm import _BatchNorm

from .fast_paths import applies_to_inference, is_transformed
from .layers import ChannelLayerNorm, is_unwrapped

PART = 2**18  # numbers that stay in a core's cache while they are normalized and turned round


def nchw_output(x: Tensor, norm: nn.Module) -> Tensor:
    """``norm(x)`` of (B, C, H, W), copied in NCHW order, in which mmcv's RoIAlign reads memory, whatever the strides
    say; its gradient comes in channels_last memory like those inside the stages."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or is_transformed():
        return norm(x).clone(memory_format=torch.contiguous_format)
    if applies_to_inference(x, *norm.parameters()) and _is_per_position(norm):
        return _in_order(x, norm, torch.contiguous_format)
    return InOrder.apply(norm(x), torch.contiguous_format)


def _is_per_position(norm: nn.Module) -> bool:
    """Whether a norm gives the same for parts of a feature map as for all of it, and nobody sees which it got."""
    fixed = isinstance(norm, _BatchNorm) and not norm.training and norm.running_mean is not None
    return (fixed or isinstance(norm, (ChannelLayerNorm, nn.Identity))) and is_unwrapped(norm, kind=type(norm))


class InOrder(Function):
    """A copy of (B, C, H, W) in NCHW or channels_last memory; its gradient comes in the other."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, memory_format: torch.memory_format) -> Tensor:
        ctx.other = torch.channels_last if memory_format == torch.contiguous_format else torch.contiguous_format
        return _in_order(x, nn.Identity(), memory_format)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        there = gradient.is_contiguous(memory_format=ctx.other)
        return gradient if there else InOrder.apply(gradient, ctx.other), None


def _in_order(x: Tensor, norm: nn.Module, memory_format: torch.memory_format) -> Tensor:
    out = torch.empty_like(x, memory_format=memory_format)
    if x.device.type != 'cpu':
        return out.copy_(norm(x))
    rows = max(1, PART // (x.shape[1] * x.shape[3]))
    for image, target in zip(x.split(1), out.split(1), strict=True):
        for part, place in zip(image.split(rows, 2), target.split(rows, 2), strict=True):
            _turn(norm(part)[0].flatten(1), place[0].flatten(1))
    return out


def _turn(x: Tensor, out: Tensor) -> None:
    """Copies (C, positions) into memory of the other order."""
    if max(x.stride()) * x.element_size() % 1024 == 0:
        # Lines so far apart share few places of the nearest cache, and would leave it before all of them is read.
        x = _apart(x.t()).t() if x.stride(0) == 1 else _apart(x)
    out.copy_(x)


def _apart(x: Tensor) -> Tensor:
    return x.new_empty(len(x), x.shape[1] + 64 // x.element_size())[:, : x.shape[1]].copy_(x)
