"""The inference form of a model."""

import copy
from collections import Counter

from torch import nn

from .base import MLPBackbone
from .folding import is_foldable
from .stages import DropPath


def fuse(model: nn.Module) -> nn.Module:
    """An inference copy of a backbone, detector or segmentor: faster, with the same outputs up to rounding.

    Every BatchNorm next to a linear layer or a convolution is folded into it (in the backbones: of Hire-MLP and
    Wave-MLP, but not the output norms and those before a depthwise convolution; elsewhere: those of mmcv's
    ``ConvModule``). LayerNorm and GroupNorm depend on the image and stay. What
    only training uses is left out: stochastic depth and auxiliary heads.

    The copy is in eval mode and without gradients, and its state dict has other entries: keep the checkpoint of the
    model, which stays as it is, and fuse after loading.
    """
    fused = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(fused.modules()):
        if getattr(module, 'auxiliary_head', None) is not None:
            module.auxiliary_head = None
        for name, child in module.named_children():
            if isinstance(child, DropPath):
                setattr(module, name, nn.Identity())
        if hasattr(module, 'fold_norms'):
            module.fold_norms()
    if not isinstance(fused, MLPBackbone):
        _fuse_conv_modules(fused)
    return fused


def _fuse_conv_modules(model: nn.Module) -> None:
    from mmcv.cnn import ConvModule, fuse_conv_bn  # a backbone alone does not need mmcv

    uses = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    for module in list(model.modules()):
        if not isinstance(module, ConvModule) or module.order != ('conv', 'norm', 'act') or not module.with_norm:
            continue
        if is_foldable(module.norm) and uses[id(module.conv)] == 1:  # some heads share one among several norms
            fuse_conv_bn(module)
