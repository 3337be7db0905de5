"""Modules that would freeze the size of the example into a graph, in forms that hold for every size."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.fixed_grid import PatchStem, resized


def exportable(model: nn.Module) -> nn.Module:
    """A copy of a model, with the same weights and outputs, that PyTorch's exporter takes for images of any size."""
    model = copy.deepcopy(model).eval().requires_grad_(False)
    if getattr(model, 'auxiliary_head', None) is not None:
        model.auxiliary_head = None  # of training only
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.AdaptiveAvgPool2d and isinstance(child.output_size, int):
                setattr(module, name, AveragePool(child.output_size))
            elif type(child).__name__ == 'Upsample' and type(child).__module__.startswith('mmseg.'):
                setattr(module, name, Upsample(child))
            elif type(child) is PatchStem and child.shrink:
                child.__class__ = ShrinkingStem
    return model


class AveragePool(nn.Module):
    """``nn.AdaptiveAvgPool2d(bins)`` as two matrix products: an exporter would unroll it for the example's size."""

    def __init__(self, bins: int):
        super().__init__()
        self.bins = bins

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, bins, bins)."""
        rows, columns = (self.means(side, x) for side in x.shape[-2:])
        return rows @ x @ columns.T

    def means(self, size: int, like: Tensor) -> Tensor:
        """(bins, size): each bin as a mean of positions, those from floor(i * size / bins) to ceil of the next."""
        first, place = torch.arange(self.bins, device=like.device), torch.arange(size, device=like.device)
        start, end = first * size // self.bins, ((first + 1) * size + self.bins - 1) // self.bins
        inside = ((place >= start[:, None]) & (place < end[:, None])).float()
        return (inside / inside.sum(1, keepdim=True)).to(like.dtype)


class Upsample(nn.Module):
    """mmsegmentation's ``Upsample``, whose ``int(size * scale)`` would be a number of the example."""

    def __init__(self, original: nn.Module):
        super().__init__()
        self.arguments = dict(mode=original.mode, align_corners=original.align_corners)
        self.arguments |= dict(size=original.size) if original.size else dict(scale_factor=original.scale_factor)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, **self.arguments)


class ShrinkingStem(PatchStem):
    """A :class:`PatchStem` that resizes by 7/8 with two matrix products, since onnxruntime does not with float64."""

    def shrunk(self, x: Tensor, height: int, width: int) -> Tensor:
        return resized(x.permute(0, 2, 3, 1), height, width).permute(0, 3, 1, 2)
