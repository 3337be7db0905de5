"""Replacements for modules that would freeze the size of the traced images into a graph."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.fixed_grid import PatchStem, resized


def exportable(model: Any) -> Any:
    """Return a copy of a model, with the same weights and outputs, that can be exported for images of any size."""
    model = copy.deepcopy(model).eval().requires_grad_(False)
    model.auxiliary_head = None  # only used in training
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
    """``nn.AdaptiveAvgPool2d(bins)`` as two matrix products; an exporter would unroll it for the traced size."""

    def __init__(self, bins: int):
        super().__init__()
        self.bins = bins

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (self.weights(side, x) for side in x.shape[-2:])
        return rows @ x @ columns.T

    def weights(self, size: int, like: Tensor) -> Tensor:
        """Return (bins, size): bin i averages positions floor(i * size / bins) to ceil((i + 1) * size / bins) - 1."""
        bins, positions = torch.arange(self.bins, device=like.device), torch.arange(size, device=like.device)
        start, end = bins * size // self.bins, ((bins + 1) * size + self.bins - 1) // self.bins
        inside = ((positions >= start[:, None]) & (positions < end[:, None])).float()
        return (inside / inside.sum(1, keepdim=True)).to(like.dtype)


class Upsample(nn.Module):
    """``Upsample`` of mmsegmentation, without ``int(size * scale)``, which would become a constant of the graph."""

    def __init__(self, original: Any):
        super().__init__()
        self.arguments: dict[str, Any] = dict(mode=original.mode, align_corners=original.align_corners)
        self.arguments |= dict(size=original.size) if original.size else dict(scale_factor=original.scale_factor)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, **self.arguments)


class ShrinkingStem(PatchStem):
    """:class:`PatchStem` that resizes by 7/8 with matrix products; onnxruntime cannot resize in float64."""

    def shrunk(self, x: Tensor, height: int, width: int) -> Tensor:
        return resized(x.permute(0, 2, 3, 1), height, width).permute(0, 3, 1, 2)
