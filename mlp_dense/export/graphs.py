"""Modules from images to tensors that are exported, and their programs of torch.export."""

import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..backbones.fixed_grid import resized
from ..backbones.layers import PatchStem
from ..checks.band_agreement import band_count
from ..errors import UserError
from ..inference import reader_of
from ..kernels.compat import pad_right_bottom, round_up
from .runtime import explained

TRACED_SIZE = (288, 352)  # PyTorch treats a size of 1 as a constant; a map of stride 128 is larger here


class Graph(nn.Module):
    """Part of a model, from images (B, C, H, W) to float32 tensors.

    Images are uint8 in BGR, as OpenCV reads them, or float32 in the order of the file if the config loads them with
    LoadMultiBandImage.
    """

    outputs: tuple[str, ...]  # their names

    def __init__(self, model: Any, dtype: torch.dtype):
        super().__init__()
        cfg = model.cfg.model.data_preprocessor
        if cfg.get('test_cfg') or cfg.get('pad_value', 0):
            raise UserError('model.data_preprocessor cannot be exported; remove test_cfg, and set pad_value to 0.')
        self.network: Any = exportable(model).to(dtype)
        self.dtype, self.divisor = dtype, cfg.get('pad_size_divisor', 1)
        self.bands = band_count(model.cfg)
        self.input_dtype = torch.float32 if reader_of(model.cfg).loader else torch.uint8
        self.swaps_channels = self.bands == 3 and bool(cfg.get('bgr_to_rgb') or cfg.get('rgb_to_bgr'))
        mean, std = list(cfg.get('mean') or [0.0]), list(cfg.get('std') or [1.0])
        self.mean, self.std = (torch.tensor(values, dtype=torch.float32).view(-1, 1, 1) for values in (mean, std))
        is_rgb = self.input_dtype == torch.uint8
        order = dict(channels='BGR') if is_rgb else dict(channels='in the order of the file', bands=self.bands)
        self.images = dict(layout='NCHW', **order, dtype='uint8' if is_rgb else 'float32')
        self.preprocessing = dict(to_rgb=self.swaps_channels, mean=mean, std=std, size_divisor=self.divisor)

    def preprocess(self, images: Tensor) -> Tensor:
        """Normalize images, and append zeros at the right and the bottom up to a multiple of the divisor."""
        x = images.float()
        x = ((x.flip(1) if self.swaps_channels else x) - self.mean) / self.std
        height, width = (round_up(side, self.divisor) for side in x.shape[-2:])
        return pad_right_bottom(x, height, width).to(self.dtype)


class PyramidGraph(Graph):
    """Feature maps of the backbone or of the neck."""

    def __init__(self, model: Any, dtype: torch.dtype, part: str):
        super().__init__(model, dtype)
        self.part = part
        if part == 'neck' and not hasattr(model, 'neck'):
            raise UserError('--part neck: this model has no neck; use --part backbone or model.')
        with torch.no_grad():
            maps = self(torch.zeros(1, self.bands, 64, 64, dtype=self.input_dtype))
        self.outputs = tuple(f'map{i}' for i in range(len(maps)))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.preprocess(images)
        maps = self.network.backbone(x) if self.part == 'backbone' else self.network.extract_feat(x)
        return tuple(level_map.float() for level_map in maps)


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
                # without mmseg's ``int(size * scale)``, which would become a constant of the graph
                setattr(module, name, nn.Upsample(child.size, child.scale_factor, child.mode, child.align_corners))
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


class ShrinkingStem(PatchStem):
    """:class:`PatchStem` that resizes by 7/8 with matrix products; onnxruntime cannot resize in float64."""

    def shrunk(self, x: Tensor, height: int, width: int) -> Tensor:
        return resized(x.permute(0, 2, 3, 1), height, width).permute(0, 3, 1, 2)


def trace(graph: Graph, size: tuple[int, int] | None = None) -> ExportedProgram:
    """Return the program of a graph, for any batch of images of one `size` (height, width), or of any size."""
    images = torch.randint(256, (2, graph.bands, *(size or TRACED_SIZE))).to(graph.input_dtype)
    dynamic = dict.fromkeys((0,) if size else (0, 2, 3), Dim.DYNAMIC)
    with explained('PyTorch cannot trace this model'), torch.no_grad(), quiet():
        return torch.export.export(graph, (images,), dynamic_shapes=(dynamic,), strict=False)


def to_pt2(program: ExportedProgram, metadata: Mapping[str, str]) -> bytes:
    """Return a file of ``torch.export``, with each metadata text as an extra file."""
    file = io.BytesIO()
    with quiet():
        torch.export.save(program, file, extra_files=dict(metadata))
    return file.getvalue()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings of the exporters, which concern their own code."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(level)
