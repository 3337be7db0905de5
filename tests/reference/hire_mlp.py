"""Hire-MLP (arXiv 2108.13341): facts and reference implementation."""

import torch
from torch import Tensor, nn

from .common import (
    OF_PAPERS,
    Drawn,
    Published,
    Reference,
    Shapes,
    batch_norm,
    linear,
    overlapping_downsample,
    weighted_sum,
    weighted_sum_shapes,
)


class HireMLP(Reference):
    published = {
        'tiny': Published(18_041_672, 17_529_696, 2.144),
        'small': Published(33_113_848, 32_601_872, 4.231),
        'base': Published(58_226_856, 57_714_880, 8.111),
        'large': Published(95_723_944, 94_956_288, 13.422),
    }
    defaults = dict(
        mlp_ratios=(4, 4, 4, 4), region_sizes=(4, 3, 3, 2), step_periods=(2, 2, 3, 2), step_dilations=(2, 2, 1, 1)
    )
    custom = [
        dict(
            depths=(4, 5, 3, 3),
            dims=(4, 6, 8, 10),
            mlp_ratios=(1, 2, 3, 4),
            region_sizes=(7, 5, 2, 3),
            step_periods=(3, 4, 2, 3),
            step_dilations=(3, 5, 2, 4),
        ),
        dict(depths=(2, 1), dims=(12, 8), region_sizes=(1, 6)),
    ]
    fingerprints = ('classifier_tiny', 'dense_tiny')
    configs = {
        'mask_rcnn_1x_coco': 'tiny small base large',
        'retinanet_1x_coco': 'small base large',
        'cascade_mask_rcnn_3x_coco': 'small base large',
        'semantic_fpn_ade20k-512x512': 'small',
    }
    norm_shapes = staticmethod(Shapes.batch_norm)

    def drawn_by_paper(self, layer: nn.Module) -> Drawn:
        return OF_PAPERS

    def first_size(self, size: int) -> int:
        return max(1, (size + 1) // 4)

    def downsample_shapes(self, shapes: Shapes, arch: dict, stage: int) -> None:
        dims = arch['dims']
        name = f'network.{2 * stage - 1}' if stage else 'patch_embed'
        shapes.layer(f'{name}.proj', dims[stage], *((dims[stage - 1], 3, 3) if stage else (3, 7, 7)))
        shapes.batch_norm(f'{name}.norm', dims[stage])

    def token_mixing_shapes(self, shapes: Shapes, name: str, dim: int, arch: dict, stage: int) -> None:
        weighted_sum_shapes(shapes, f'{name}.attn', dim, self.kernel, bias=True)
        region = arch['region_sizes'][stage]
        for layer in ('mlp_h', 'mlp_w'):
            shapes.layer(f'{name}.attn.{layer}1', dim // 2, region * dim, 1, 1, bias=False)
            shapes.batch_norm(f'{name}.attn.{layer}1_norm', dim // 2)
            shapes.layer(f'{name}.attn.{layer}2', region * dim, dim // 2, 1, 1)

    norm = staticmethod(batch_norm)

    def downsample(self, w: dict, x: Tensor, stage: int) -> Tensor:
        name = f'network.{2 * stage - 1}' if stage else 'patch_embed'
        return batch_norm(w, f'{name}.norm', overlapping_downsample(w, x, stage)).clamp(min=0)

    def token_mixing(self, w: dict, name: str, x: Tensor, arch: dict, stage: int, index: int) -> Tensor:
        region = arch['region_sizes'][stage]
        step = index % arch['step_periods'][stage] * arch['step_dilations'][stage]
        h = region_mlp(w, f'{name}.attn.mlp_h', x, region, step, 2)
        v = region_mlp(w, f'{name}.attn.mlp_w', x, region, step, 3)
        return weighted_sum(w, f'{name}.attn', x, h, v)


def region_mlp(w: dict, name: str, x: Tensor, region: int, step: int, axis: int) -> Tensor:
    """Roll, pad cyclically, mix each region separately, crop, and roll back."""
    if axis == 3:
        return region_mlp(w, name, x.transpose(2, 3), region, step, 2).transpose(2, 3)
    height, rows = x.shape[2], torch.arange(x.shape[2])
    rolled = x[:, :, (rows - step) % height]
    padded = rolled[:, :, torch.arange(-(-height // region) * region) % height]
    regions = []
    for start in range(0, padded.shape[2], region):
        stacked = torch.stack([padded[:, c, start + k] for c in range(x.shape[1]) for k in range(region)], 1)
        hidden = batch_norm(w, f'{name}1_norm', linear(w, f'{name}1', stacked[:, :, None])).clamp(min=0)
        mapped = linear(w, f'{name}2', hidden)[:, :, 0]
        regions += [mapped[:, k::region] for k in range(region)]  # index of channel c and row k: c * region + k
    return torch.stack(regions, 2)[:, :, :height][:, :, (rows + step) % height]
