"""What leaves the stages of a backbone."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .fast_paths import applies_to_inference
from .layers import ChannelLayerNorm, is_unwrapped

PART = 2**18  # numbers that stay in a core's cache while they are normalized and turned round


def nchw_output(x: Tensor, norm: nn.Module) -> Tensor:
    """``norm(x)`` of (B, C, H, W), copied in NCHW order, in which mmcv's RoIAlign reads memory, whatever the strides
    say; its gradient is kept in channels_last memory like those inside the stages."""
    if not torch.compiler.is_compiling() and applies_to_inference(x, *norm.parameters()):
        return _in_parts(x, norm) if _is_per_position(norm) else _in_parts(norm(x), nn.Identity())
    x = norm(x)
    if x.requires_grad and not torch.compiler.is_compiling():
        # None: of a second derivative, where no gradient comes from this output.
        x.register_hook(
            lambda gradient: None if gradient is None else gradient.contiguous(memory_format=torch.channels_last)
        )
    return x.clone(memory_format=torch.contiguous_format)


def _is_per_position(norm: nn.Module) -> bool:
    """Whether a norm gives the same for parts of a feature map as for all of it, and nobody sees which it got."""
    fixed = isinstance(norm, _BatchNorm) and not norm.training and norm.running_mean is not None
    return (fixed or isinstance(norm, (ChannelLayerNorm, nn.Identity))) and is_unwrapped(norm, kind=type(norm))


def _in_parts(x: Tensor, norm: nn.Module) -> Tensor:
    rows = max(1, PART // (x.shape[1] * x.shape[3]))
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    for image, target in zip(x.split(1), out.split(1), strict=True):
        for part, place in zip(image.split(rows, 2), target.split(rows, 2), strict=True):
            place.copy_(norm(part))
    return out
