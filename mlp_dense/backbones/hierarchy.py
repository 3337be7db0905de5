"""Backbones whose stages halve the resolution one after the other."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from ..checkpoints.matching import LeftOut
from .base import MLPBackbone
from .layers import ChannelMLP
from .stages import Block, Stage

NETWORK_NAMES = (
    (r'^(norm|head)\.', LeftOut('classifier head and norm')),
    (r'^patch_embed\.proj\.', 'stem.conv.'),
    (r'^patch_embed\.norm\.', 'stem.norm.'),
    (r'^network\.([0246])\.(\d+)\.', lambda m: f'stages.{int(m[1]) // 2}.blocks.{m[2]}.'),
    (r'^network\.([135])\.proj\.', lambda m: f'stages.{int(m[1]) // 2 + 1}.downsample.conv.'),
    (r'^network\.([135])\.norm\.', lambda m: f'stages.{int(m[1]) // 2 + 1}.downsample.norm.'),
    (r'^norm([0246])\.', lambda m: f'norms.{int(m[1]) // 2}.'),
    (r'\.attn\.mlp_c\.', '.token_mixing.channel.'),
    (r'\.attn\.', '.token_mixing.'),
    (r'\.mlp\.(?=fc)', '.channel_mixing.'),
)
"""``official_names`` of families whose code keeps stages and downsamplings in one list, ``network``."""


class HierarchicalMLP(MLPBackbone):
    """Builds the stages of a hierarchical vision MLP from the parts that a family gives.

    Stem and downsampling take and give (B, C, H, W); token and channel mixing (B, H, W, C), where a linear layer is
    one matrix product.
    """

    stem_stride: ClassVar[int] = 4
    keeps_gelu: ClassVar[bool] = False
    """Whether training keeps what GELU gives in an MLP: faster, where a network has the memory to spare."""

    def make_stem(self, in_channels: int, dim: int) -> nn.Module:
        """(B, in_channels, H, W) to (B, dim, about H / stem_stride, about W / stem_stride)."""
        raise NotImplementedError

    def make_downsample(self, in_dim: int, dim: int, stage: int) -> nn.Module:
        """What leads to a stage, counted from 0: (B, in_dim, H, W) to (B, dim, ceil(H / 2), ceil(W / 2))."""
        raise NotImplementedError

    def make_token_mixing(self, stage: int, index: int) -> nn.Module:
        """For block `index` of a stage, both counted from 0: (B, H, W, dim) to the same shape."""
        raise NotImplementedError

    def make_channel_mixing(self, stage: int, index: int) -> nn.Module:
        """The same; two linear layers, where a family has nothing else."""
        dim = self.arch['dims'][stage]
        return ChannelMLP(dim, int(dim * self.arch['mlp_ratios'][stage]), self.keeps_gelu)

    def stage_stride(self, stage: int) -> int:
        return self.stem_stride * 2**stage

    def build(self, in_channels: int, drop_paths: Sequence[Sequence[float]], with_cp: bool) -> None:
        dims = self.arch['dims']
        self.stem = self.make_stem(in_channels, dims[0])
        self.stages = nn.ModuleList()
        for i, rates in enumerate(drop_paths):
            downsample = self.make_downsample(dims[i - 1], dims[i], i) if i else nn.Identity()
            blocks = [
                Block(dims[i], self.make_token_mixing(i, j), self.make_channel_mixing(i, j), self.make_norm, rate)
                for j, rate in enumerate(rates)
            ]
            self.stages.append(Stage(downsample, blocks, with_cp))

    @classmethod
    def arch_like(cls, weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
        def widths(name: str) -> list[int]:
            found = (weights.get(f'stages.{i}.blocks.0.{name}.weight') for i in range(len(depths)))
            # Three dimensions: of several experts.
            return [w.shape[w.ndim == 3] if w is not None and w.ndim else 0 for w in found]

        first = re.compile(r'stages\.(\d+)\.blocks\.\d+\.norm1\.weight')
        depths = Counter(int(match[1]) for match in map(first.fullmatch, weights) if match)
        dims, hidden = widths('norm1'), widths('channel_mixing.fc1')
        if not depths or not all(dims) or not all(hidden):
            return None
        ratios = tuple(wide // dim for wide, dim in zip(hidden, dims, strict=True))
        return dict(depths=tuple(depths[i] for i in range(len(dims))), dims=tuple(dims), mlp_ratios=ratios)
