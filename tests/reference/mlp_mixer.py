"""MLP-Mixer (arXiv 2105.01601): facts and reference implementation."""

import functools

import torch
from torch import Tensor, nn

from .common import Drawn, Published, Shapes, gelu, norm_over, xavier
from .fixed_grid import FixedGrid


class MLPMixer(FixedGrid):
    published = {
        's32': Published(19_104_624, 24_892_296, 1.002),
        's16': Published(18_528_264, 21_166_624, 3.777),
        'b32': Published(60_293_428, 73_694_028, 3.238),
        'b16': Published(59_880_472, 66_197_808, 12.602),
        'l32': Published(206_939_264, 231_098_520, 11.253),
        'l16': Published(208_196_168, 219_765_344, 44.548),
    }
    defaults = dict(mlp_ratios=(4, 4, 4, 4), patch_size=16, grid_size=14)
    custom = [
        dict(depths=(1, 2, 1, 1), dims=(5, 7, 11, 4), mlp_ratios=(1, 2, 3, 4), grid_size=3),
        dict(depths=(2, 1), dims=(12, 12), patch_size=4, grid_size=5),
        dict(depths=(1, 1, 2), dims=(6, 6, 8), patch_size=32, grid_size=2),
    ]
    fingerprints = ('classifier_s32',)
    configs = {
        'mask_rcnn_1x_coco': 's16 b16',
        'upernet_ade20k-512x512': 's32 s16 b16',
        'semantic_fpn_ade20k-512x512': 's32 s16',
    }
    stem = 'stem.proj'
    channel_mlp = 'mlp_channels'
    kernel = ()
    norm = staticmethod(functools.partial(norm_over, (1,), eps=1e-6))

    def drawn_by_paper(self, layer: nn.Module) -> Drawn:
        if isinstance(layer, nn.Linear):
            return xavier(*layer.weight.shape)
        std = layer.weight[0].numel() ** -0.5  # the stem
        return Drawn(std, 2 * std / 0.8796, 0)

    def grids(self, arch: dict) -> list[int]:
        return [arch['grid_size']] * len(arch['depths'])

    def block_name(self, stage: int, index: int, arch: dict) -> str:
        return f'blocks.{sum(arch["depths"][:stage]) + index}'

    def between_name(self, stage: int, arch: dict) -> str:
        return f'stages.{stage}.downsample.conv'  # absent in published variants

    def token_mixing_shapes(self, shapes: Shapes, name: str, dim: int, arch: dict, stage: int) -> None:
        tokens = arch['grid_size'] ** 2
        shapes.layer(f'{name}.mlp_tokens.fc1', dim // 2, tokens)
        shapes.layer(f'{name}.mlp_tokens.fc2', tokens, dim // 2)

    def mix(self, w: dict, name: str, x: Tensor, arch: dict) -> Tensor:
        fc1, fc2 = (f'{name}.mlp_tokens.{layer}' for layer in ('fc1', 'fc2'))
        hidden = gelu(torch.einsum('mn,bcn->bcm', w[f'{fc1}.weight'], x.flatten(2)) + w[f'{fc1}.bias'])
        out = torch.einsum('nm,bcm->bcn', w[f'{fc2}.weight'], hidden) + w[f'{fc2}.bias']
        return out.reshape(x.shape)
