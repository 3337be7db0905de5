"""Vision Permutator, ViP (Hou et al., arXiv 2106.12368)."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..kernels import along_axis
from .base import NETWORK_NAMES
from .fixed_grid import FixedGridMLP, GridMixing
from .layers import ChannelLayerNorm, Pointwise, WeightedBranches, init_linear_layers


class PermuteMLP(GridMixing):
    """A linear layer along each axis and one over the channels, weighted and projected (sec. 3.1).

    The layer along an axis mixes its positions together with dim / grid channels.
    """

    def __init__(self, dim: int, grid: int, is_global: bool):
        super().__init__(grid, is_global)
        self.along_h, self.along_w, self.channel = (Pointwise(dim, dim, bias=False) for _ in range(3))
        self.reweight = WeightedBranches(dim)
        self.proj = Pointwise(dim, dim)

    def mix(self, x: Tensor) -> Tensor:
        c, x = self.windows(self.channel(x)), self.windows(x)
        h, w = along_axis(x, self.along_h, 2), along_axis(x, self.along_w, 4)
        return self.reweight(h, w, c, axes=(2, 4)).flatten(5).flatten(3, 4).flatten(1, 2)

    def project(self, x: Tensor) -> Tensor:
        return self.proj(x)

    def windows(self, x: Tensor) -> Tensor:
        """View (B, rows * grid, columns * grid, dim) as (B, rows, grid, columns, grid, segments, dim / segments)."""
        size = (-1, self.grid)
        return x.unflatten(3, (self.grid, -1)).unflatten(2, size).unflatten(1, size)


class VisionPermutator(FixedGridMLP):
    """Vision Permutator (arXiv 2106.12368, table 2) as a feature pyramid: archs s7, s14, m7 and l7.

    Args:
        resize_input: whether images are zero-padded to a multiple of 16 pixels and resized by 7/8, so that patches of
            7 or 14 pixels give strides of 4, 8, 16 and 32; without it strides are 3.5, 7, 14 and 28.
    """

    archs = {
        's7': dict(depths=(4, 3, 8, 3), dims=(192, 384, 384, 384), patch_size=7, segments=(32, 16, 16, 16)),
        's14': dict(depths=(4, 3, 8, 3), dims=(384, 384, 384, 384)),
        'm7': dict(depths=(4, 3, 14, 3), dims=(256, 256, 512, 512), patch_size=7, segments=(32, 32, 16, 16)),
        'l7': dict(depths=(8, 8, 16, 4), dims=(256, 512, 512, 512), patch_size=7, segments=(32, 16, 16, 16)),
    }
    arch_defaults = dict(mlp_ratios=(3, 3, 3, 3), patch_size=14, segments=(16, 16, 16, 16))
    norms_allowed = {'LN': ChannelLayerNorm}
    first_stride = 3.5
    official_names = ((r'\.attn\.mlp_([hw])\.', r'.token_mixing.along_\1.'), *NETWORK_NAMES)

    def __init__(self, *args: Any, resize_input: bool = True, **kwargs: Any):
        self.shrink = resize_input
        super().__init__(*args, **kwargs)

    @classmethod
    def grid_sizes(cls, arch: Mapping[str, Any]) -> Sequence[int]:
        return arch['segments']  # as many segments of channels as positions along an axis

    @classmethod
    def names_in(cls, keys: Collection[str], depths: Sequence[int] | None = None) -> tuple[tuple[str, Any], ...]:
        between = {int(m[1]) for key in keys if (m := re.match(r'network\.(\d+)\.proj\.', key))}

        def stage(number: str) -> int:
            return int(number) - sum(other < int(number) for other in between)

        return (
            (r'^network\.(\d+)\.(\d+)\.', lambda m: f'stages.{stage(m[1])}.blocks.{m[2]}.'),
            (r'^network\.(\d+)\.proj\.', lambda m: f'stages.{stage(m[1])}.downsample.conv.'),
            *cls.official_names,
        )

    def make_token_mixing(self, stage: int, index: int) -> nn.Module:
        dim, segments = self.arch['dims'][stage], self.arch['segments'][stage]
        if dim % segments:
            raise self._error('dims of arch', self.arch['dims'], f'multiples of segments, {self.arch["segments"]}')
        return PermuteMLP(dim, segments, self.is_global(stage, index))

    @classmethod
    def _infer_arch(cls, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        fields = super()._infer_arch(weights)
        segments = [224 // fields['patch_size']]  # of the published image
        for stage in range(1, len(fields['depths'])):
            downsample = weights.get(f'stages.{stage}.downsample.conv.weight')
            segments.append(segments[-1] // (1 if downsample is None else downsample.shape[3]))
        return fields | dict(segments=tuple(segments))

    def init_family_weights(self) -> None:
        init_linear_layers(self, (nn.Linear,))
