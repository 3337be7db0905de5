"""Inference copies of models: norms folded into linear layers and convolutions."""

import copy
import sys
from collections import Counter

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def fuse(model: nn.Module) -> nn.Module:
    """Return an inference copy of a backbone, detector or segmentor: faster, with the same outputs up to rounding.

    Every BatchNorm next to a linear layer or a convolution is folded into it: in Hire-MLP and Wave-MLP, except output
    norms and those before a depthwise convolution, and in mmcv's ``ConvModule``. Stochastic depth and auxiliary heads,
    which only training uses, are removed. Fuse after loading, because the state dict of the copy has other entries.
    """
    fused = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(fused.modules()):
        if getattr(module, 'auxiliary_head', None) is not None:
            module.auxiliary_head = None  # type: ignore[assignment]
        if hasattr(module, 'fold_norms'):
            module.fold_norms()
    if 'mmcv' in sys.modules:  # without it a model cannot contain any of its layers
        _fuse_conv_modules(fused)
    return fused


def _fuse_conv_modules(model: nn.Module) -> None:
    from mmcv.cnn import ConvModule, fuse_conv_bn

    uses = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    for module in list(model.modules()):
        if not isinstance(module, ConvModule) or module.order != ('conv', 'norm', 'act') or not module.with_norm:
            continue
        if is_foldable(module.norm) and uses[id(module.conv)] == 1:  # some heads share one among several norms
            fuse_conv_bn(module)


def is_foldable(norm: nn.Module) -> bool:
    """Whether a norm is a fixed scale and shift at inference: a BatchNorm with running statistics."""
    return isinstance(norm, _BatchNorm) and norm.running_mean is not None


def fold_before(norm: nn.Module, *layers: nn.Linear) -> nn.Module:
    """Fold a norm into all linear layers that read its output, and return what remains of the norm."""
    if not is_foldable(norm):
        return norm
    for layer in layers:
        repeats = layer.in_features // norm.num_features  # the positions of a region, side by side for every channel
        scale, shift = (values.repeat_interleave(repeats) for values in _scale_and_shift(norm))
        weight = layer.weight.double()
        bias = 0 if layer.bias is None else layer.bias
        _set(layer, weight * scale, weight @ shift + bias)
    return nn.Identity()


def fold_after(layer: nn.Linear | nn.Conv2d, norm: nn.Module) -> nn.Module:
    """Fold a norm into the linear layer or convolution whose output it reads, and return what remains of the norm."""
    if not is_foldable(norm):
        return norm
    scale, shift = _scale_and_shift(norm)
    bias = 0 if layer.bias is None else layer.bias
    _set(layer, (layer.weight.flatten(1) * scale[:, None]).view_as(layer.weight), shift + bias * scale)
    return nn.Identity()


def _scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


def _set(layer: nn.Linear | nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    layer.bias = nn.Parameter(bias.to(layer.weight.dtype), False)
    layer.weight = nn.Parameter(weight.to(layer.weight.dtype), False)
