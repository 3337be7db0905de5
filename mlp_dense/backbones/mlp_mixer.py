"""MLP-Mixer (Tolstikhin et al., arXiv 2105.01601), with the names and numerics of timm."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

from torch import Tensor, nn

from ..checkpoints.matching import LeftOut
from .fixed_grid import FixedGridMLP, GridMixing
from .layers import ChannelLayerNorm, ChannelMLP


class MixerTokenMixing(GridMixing):
    """An MLP of (..., grid**2) to the same size over the positions of a window, for every channel (sec. 2)."""

    def __init__(self, grid: int, is_global: bool, mlp: nn.Module):
        super().__init__(grid, is_global)
        self.mlp = mlp

    def mix(self, x: Tensor) -> Tensor:
        return self.from_tokens(self.mlp(self.to_tokens(x)), x.shape[0])

    def to_tokens(self, x: Tensor) -> Tensor:
        """Split (B, rows * grid, columns * grid, dim) into windows (B * rows, columns, dim, grid**2)."""
        x = x.unflatten(2, (-1, self.grid)).unflatten(1, (-1, self.grid)).permute(0, 1, 3, 5, 2, 4)
        return x.flatten(4).flatten(0, 1)

    def from_tokens(self, x: Tensor, batch: int) -> Tensor:
        """Join windows, the inverse of :meth:`to_tokens`."""
        x = x.unflatten(3, (self.grid, self.grid)).unflatten(0, (batch, -1))  # (B, rows, columns, dim, grid, grid)
        return x.permute(0, 1, 4, 2, 5, 3).flatten(3, 4).flatten(1, 2)


class MLPMixer(FixedGridMLP):
    """MLP-Mixer (arXiv 2105.01601, table 1) as a feature pyramid: archs s16, s32, b16, b32, l16 and l32.

    Each has four stages with the same number of blocks. The published weights require images with mean and standard
    deviation 0.5, those of MIIL with 0 and 1.
    """

    archs = {
        's16': dict(depths=(2,) * 4, dims=(512,) * 4),
        's32': dict(depths=(2,) * 4, dims=(512,) * 4, patch_size=32, grid_size=7),
        'b16': dict(depths=(3,) * 4, dims=(768,) * 4),
        'b32': dict(depths=(3,) * 4, dims=(768,) * 4, patch_size=32, grid_size=7),
        'l16': dict(depths=(6,) * 4, dims=(1024,) * 4),
        'l32': dict(depths=(6,) * 4, dims=(1024,) * 4, patch_size=32, grid_size=7),
    }
    arch_defaults = dict(mlp_ratios=(4, 4, 4, 4), patch_size=16, grid_size=14)
    norms_allowed = {'LN': partial(ChannelLayerNorm, eps=1e-6)}
    official_names = (
        (r'^(norm|ln1|head)\.', LeftOut('classifier head and norm')),
        (r'^(stem\.proj|patch_embed\.projection)\.', 'stem.conv.'),
        (r'\.mlp_tokens\.', '.token_mixing.mlp.'),
        (r'\.mlp_channels\.', '.channel_mixing.'),
        # The names of mmpretrain.
        (r'\.ln([12])\.', r'.norm\1.'),
        (r'\.token_mix\.layers\.', '.token_mixing.mlp.'),
        (r'\.channel_mix\.layers\.', '.channel_mixing.'),
        (r'(?<=mixing\.)(mlp\.)?0\.0\.', lambda m: f'{m[1] or ""}fc1.'),
        (r'(?<=mixing\.)(mlp\.)?1\.', lambda m: f'{m[1] or ""}fc2.'),
    )

    @classmethod
    def names_in(cls, keys: Collection[str], depths: Sequence[int] | None = None) -> tuple[tuple[str, Any], ...]:
        block = re.compile(r'^(?:blocks|layers)\.(\d+)\.')
        if depths is None:
            count = 1 + max((int(m[1]) for m in map(block.match, keys) if m), default=-1)
            depths = (count // 4,) * 4
        ends = list(accumulate(depths))

        def our_name(match: re.Match) -> str:
            number = int(match[1])
            stage = sum(number >= end for end in ends[:-1])  # surplus blocks belong to the last stage
            return f'stages.{stage}.blocks.{number - (ends[stage] - depths[stage])}.'

        return ((block.pattern, our_name), *cls.official_names)

    def make_token_mixing(self, stage: int, index: int) -> nn.Module:
        grid = self.arch['grid_size']
        mlp = ChannelMLP(grid**2, max(1, self.arch['dims'][stage] // 2))
        return MixerTokenMixing(grid, self.is_global(stage, index), mlp)

    def init_family_weights(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.normal_(layer.bias, std=1e-6)
        weight, bias = self.stem.conv.parameters()
        std = weight[0].numel() ** -0.5 / 0.8796  # the standard deviation of a normal distribution truncated at 2
        nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(bias)

    @classmethod
    def _infer_arch(cls, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        tokens = weights['stages.0.blocks.0.token_mixing.mlp.fc1.weight'].shape[-1]
        return super()._infer_arch(weights) | dict(grid_size=math.isqrt(tokens))
