"""Vision Permutator (arXiv 2106.12368): facts and reference implementation."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from .common import OF_PAPERS, Drawn, Published, Shapes, weighted_sum, weighted_sum_shapes
from .fixed_grid import FixedGrid


class VisionPermutator(FixedGrid):
    published = {
        's14': Published(29_892_904, 31_281_600, 6.856),
        's7': Published(25_114_984, 25_469_760, 6.902),
        'm7': Published(55_272_488, 55_023_936, 16.284),
        'l7': Published(87_784_936, 88_585_984, 24.340),
    }
    native = dict(resize_input=False)
    defaults = dict(mlp_ratios=(3, 3, 3, 3), patch_size=14, segments=(16, 16, 16, 16))
    custom = [
        dict(depths=(1, 2, 1, 1), dims=(4, 8, 12, 4), mlp_ratios=(1, 2, 3, 4), patch_size=7, segments=(4, 4, 2, 2)),
        dict(depths=(2, 1), dims=(12, 12), segments=(3, 3)),
        dict(depths=(1, 1, 2), dims=(8, 4, 4), patch_size=28, segments=(4, 2, 1)),
    ]
    fingerprints = ('classifier_s14',)
    configs = {
        'mask_rcnn_1x_coco': 's7 m7 s14',
        'upernet_ade20k-512x512': 's14 s7',
        'semantic_fpn_ade20k-512x512': 's14 s7',
    }
    resizes = True
    kernel = ()
    channel_mlp = 'mlp'

    def drawn_by_paper(self, layer: nn.Module) -> Drawn | None:
        return OF_PAPERS if isinstance(layer, nn.Linear) else None

    def grids(self, arch: dict) -> list[int]:
        return list(arch['segments'][: len(arch['depths'])])

    def block_name(self, stage: int, index: int, arch: dict) -> str:
        dims, segments = arch['dims'], arch['segments']
        pairs = list(zip(dims, segments, strict=False))
        changes = sum(before != after for before, after in pairwise(pairs[: stage + 1]))
        return f'network.{stage + changes}.{index}'

    def between_name(self, stage: int, arch: dict) -> str:
        return f'network.{int(self.block_name(stage, 0, arch).split(".")[1]) - 1}.proj'

    def token_mixing_shapes(self, shapes: Shapes, name: str, dim: int, arch: dict, stage: int) -> None:
        weighted_sum_shapes(shapes, f'{name}.attn', dim, self.kernel, bias=False)
        for axis in 'hw':
            shapes.layer(f'{name}.attn.mlp_{axis}', dim, dim, bias=False)

    def mix(self, w: dict, name: str, x: Tensor, arch: dict) -> Tensor:
        grid = x.shape[2]
        segments = x.unflatten(1, (grid, -1))  # (B, segment, channel in the segment, row, column)
        size = (grid, segments.shape[2])  # of a vector: positions along an axis, then channels
        along_h, along_w = (w[f'{name}.attn.mlp_{axis}.weight'].unflatten(1, size).unflatten(0, size) for axis in 'hw')
        h = torch.einsum('ptqs,bgsqw->bgtpw', along_h, segments).flatten(1, 2)
        v = torch.einsum('ptqs,bgshq->bgthp', along_w, segments).flatten(1, 2)
        return weighted_sum(w, f'{name}.attn', x, h, v)
