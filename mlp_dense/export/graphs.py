"""Modules from images to tensors that are exported: a whole model, or its backbone or neck."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.fixed_grid import PatchStem, resized
from ..errors import UserError


class Preprocessing(nn.Module):
    """Data preprocessor of a config in a test: channel order, mean, standard deviation and padding.

    Zeros are appended at the right and the bottom, up to a multiple of the size divisor. `cfg` is the
    ``data_preprocessor`` of a config of mmdet or mmsegmentation; the metadata of a file contain ``settings``.
    """

    means: Tensor
    stds: Tensor

    def __init__(self, cfg: Mapping[str, Any], dtype: torch.dtype):
        super().__init__()
        if cfg.get('test_cfg') or cfg.get('pad_value', 0):
            raise UserError('model.data_preprocessor cannot be exported; remove test_cfg, and set pad_value to 0.')
        self.dtype, self.divisor = dtype, cfg.get('pad_size_divisor', 1)
        self.swaps_channels = bool(cfg.get('bgr_to_rgb') or cfg.get('rgb_to_bgr'))
        mean, std = list(cfg.get('mean') or [0.0]), list(cfg.get('std') or [1.0])
        self.settings = dict(to_rgb=self.swaps_channels, mean=mean, std=std, size_divisor=self.divisor)
        for name, values in (('means', mean), ('stds', std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalize and pad uint8 images (B, 3, H, W)."""
        x = images.float()
        x = ((x.flip(1) if self.swaps_channels else x) - self.means) / self.stds
        height, width = x.shape[-2:]
        if self.divisor > 1:
            rows, columns = ((side + self.divisor - 1) // self.divisor * self.divisor for side in (height, width))
            x = F.pad(x, (0, columns - width, 0, rows - height))
        return x.to(self.dtype)


class Graph(nn.Module):
    """Part of a model, from uint8 images (B, 3, H, W) in BGR, as OpenCV reads them, to float32 tensors."""

    outputs: tuple[str, ...]  # their names

    def __init__(self, model: Any, dtype: torch.dtype):
        super().__init__()
        self.preprocessing = Preprocessing(model.cfg.model.data_preprocessor, dtype)
        self.network: Any = exportable(model).to(dtype)


class PyramidGraph(Graph):
    """Feature maps of the backbone or of the neck."""

    def __init__(self, model: Any, dtype: torch.dtype, part: str):
        super().__init__(model, dtype)
        self.part = part
        if part == 'neck' and not hasattr(model, 'neck'):
            raise UserError('--part neck: this model has no neck; use --part backbone or model.')
        with torch.no_grad():
            maps = self(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
        self.outputs = tuple(f'map{i}' for i in range(len(maps)))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.preprocessing(images)
        maps = self.network.backbone(x) if self.part == 'backbone' else self.network.extract_feat(x)
        return tuple(level_map.float() for level_map in maps)


class SegmentorGraph(Graph):
    """Class scores (B, classes, H, W) before softmax, and the label map (B, H, W) of the highest score."""

    outputs = ('scores', 'labels')

    def __init__(self, model: Any, dtype: torch.dtype):
        if type(model).__name__ != 'EncoderDecoder':
            raise not_exportable(model)
        if model.out_channels < 2:
            raise not_exportable(model, 'a single class')
        super().__init__(model, dtype)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        head, size = self.network.decode_head, images.shape[-2:]
        logits = head(self.network.extract_feat(self.preprocessing(images))).float()
        scores = F.interpolate(logits, size, mode='bilinear', align_corners=head.align_corners)
        return scores, scores.argmax(1)


def not_exportable(model: Any, part: str = '') -> UserError:
    """Return the error for a model, or its `part`, that cannot be exported as a whole."""
    name = f'{type(model).__name__}{f" with {part}" if part else ""}'
    return UserError(f'{name} cannot be exported as a whole model; use --part backbone or --part neck.')


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
