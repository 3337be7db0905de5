"""Networks that were published for images of one size, as feature pyramids for images of any size.

Their token mixing is a matrix over the positions of a grid of patches. As ViTDet (arXiv 2203.16527) does it for a
plain vision transformer, most blocks mix inside windows of that grid, a few on the whole feature map, resized to it;
and as there, each stage's output is rescaled to strides of 4, 8, 16 and 32. On an image of the published size every
form is the published network.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import cuda_paths, cuda_windows, fast_paths
from .compat import pad_right_bottom, round_up
from .hierarchy import HierarchicalMLP
from .layers import ConvDownsample, MakeNorm, in_nchw

GLOBAL_BLOCKS = ('last', 'all', 'none')


class GridMixing(nn.Module):
    """Token mixing of (B, H, W, dim) by layers for (B, grid, grid, dim): in windows of that size, the feature map
    filled up with zeros at the right and the bottom; or, if it is global, on the feature map resized to that size."""

    def __init__(self, grid: int, is_global: bool):
        super().__init__()
        self.grid, self.is_global = grid, is_global

    def mix(self, x: Tensor) -> Tensor:
        """(B, rows * grid, columns * grid, dim), each window of (grid, grid) by itself, to the same size."""
        raise NotImplementedError

    def project(self, x: Tensor) -> Tensor:
        """What follows at every position by itself, so only where there is something: (B, H, W, ...) to dim."""
        return x

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        x = cuda_paths.in_autocast_type(x)
        if self.is_global:
            return resized(self.project(self.mix(resized(x, self.grid, self.grid))), height, width)
        rows, columns = (round_up(side, self.grid) for side in (height, width))
        if cuda_paths.applies(x):
            return self.project(cuda_windows.cropped(self.mix(cuda_windows.filled_up(x, rows, columns)), height, width))
        x = in_nchw(partial(pad_right_bottom, height=rows, width=columns), x)
        return self.project(self.mix(x)[:, :height, :width])

    def extra_repr(self) -> str:
        return f'grid={self.grid}, is_global={self.is_global}'


def resized(x: Tensor, height: int, width: int) -> Tensor:
    """(B, H, W, C) to (B, height, width, C), bilinear with antialiasing: two products with matrices, which take every
    dtype and have a deterministic gradient."""
    if not torch.compiler.is_compiling() and tuple(x.shape[1:3]) == (height, width):
        return x  # not in compiled code, which must hold for all sizes
    batch, rows, columns, channels = x.shape
    x = _resampling(rows, height, x).expand(batch, -1, -1).bmm(x.reshape(batch, rows, -1))
    x = x.view(batch * height, columns, channels)
    return _resampling(columns, width, x).expand(x.shape[0], -1, -1).bmm(x).view(batch, height, width, channels)


def _resampling(source: int, target: int, like: Tensor) -> Tensor:
    """(target, source): each new pixel as a mean of old ones, with weights that fall linearly to zero."""
    new, old = (torch.arange(size, dtype=precise_type(like), device=like.device) + 0.5 for size in (target, source))
    reach = max(source, target) / target
    weights = (1 - (old - new[:, None] * (source / target)).abs() / reach).clamp(min=0)
    return (weights / weights.sum(1, keepdim=True)).to(like.dtype)


def precise_type(x: Tensor) -> torch.dtype:
    """For the weights of a mean of pixels: of float32 the sixth digit would be wrong."""
    return torch.float32 if x.device.type == 'mps' else torch.float64


class PatchStem(ConvDownsample):
    """A vector for each patch of (B, in_channels, H, W), filled up with zeros at the right and the bottom to multiples
    of `multiple`; `shrink` then resizes it by exactly 7/8."""

    def __init__(self, in_channels: int, dim: int, patch_size: int, multiple: int, shrink: bool = False):
        super().__init__(in_channels, dim, patch_size, stride=patch_size, padding=0)
        self.multiple, self.shrink = multiple, shrink

    def forward(self, x: Tensor) -> Tensor:
        height, width = (round_up(side, self.multiple) for side in x.shape[-2:])
        x = pad_right_bottom(x, height, width)
        if self.shrink:
            x = self.shrunk(x, height // 8 * 7, width // 8 * 7)
        return super().forward(x)

    def shrunk(self, x: Tensor, height: int, width: int) -> Tensor:
        return F.interpolate(x.to(precise_type(x)), (height, width), mode='bilinear', antialias=True).to(x.dtype)


class Doubling(nn.ConvTranspose2d):
    """Twice the height and width of (B, dim, H, W): four pixels for each."""

    def __init__(self, dim: int):
        super().__init__(dim, dim, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return fast_paths.doubled(x, self.weight, self.bias)


class Rescaling(nn.Sequential):
    """What a stage gives, (B, dim, H, W), with 2**doublings the height and width: up by transposed convolutions, down
    by maxima; then without what lies outside of the image, whose size (height, width) goes with it."""

    def __init__(self, dim: int, doublings: int, stride: int | float, norm: MakeNorm):
        layers: dict[str, nn.Module] = {}
        for i in range(doublings):
            layers |= {f'norm{i}': norm(dim), f'gelu{i}': nn.GELU()} if i else {}
            layers[f'up{i}'] = Doubling(dim)
        if doublings < 0:
            layers['pool'] = nn.MaxPool2d(2**-doublings, ceil_mode=True)
        super().__init__(OrderedDict(layers))
        self.stride = stride

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        halves = int(2 * self.stride)  # a stride may be 3.5
        height, width = ((2 * side + halves - 1) // halves for side in size)
        x = super().forward(x)
        if torch.compiler.is_compiling():  # for a view it would compile again for sizes where nothing is cut off
            rows, columns = (torch.arange(side, device=x.device) for side in (height, width))
            return x.index_select(2, rows).index_select(3, columns)
        return x[:, :, :height, :width]


class FixedGridMLP(HierarchicalMLP):
    """A backbone whose stages are blocks on fixed grids of patches, with feature maps of strides 4, 8, 16 and 32.

    Args:
        global_blocks: the blocks that mix on the whole feature map instead of in windows: the ``'last'`` of each
            stage, ``'all'`` or ``'none'``.

    The others: see :class:`MLPBackbone`.
    """

    first_stride: ClassVar[int | float] = 4
    """Of the outputs, in pixels of the image that the stem cuts into patches; a patch is that times a power of two."""
    shrink = False
    """Whether images are resized by 7/8 first."""

    def __init__(self, *args: Any, global_blocks: str = 'last', **kwargs: Any):
        if global_blocks not in GLOBAL_BLOCKS:
            raise self._error('global_blocks', global_blocks, ', '.join(GLOBAL_BLOCKS))
        self.global_blocks = global_blocks
        super().__init__(*args, **kwargs)

    @classmethod
    def grid_sizes(cls, arch: Mapping[str, Any]) -> Sequence[int]:
        """Patches along each side of the feature map of every stage, on an image of the published size."""
        return [arch['grid_size']] * len(arch['depths'])

    @classmethod
    def _resolve_arch(cls, arch: str | Mapping[str, Any]) -> dict[str, Any]:
        arch = super()._resolve_arch(arch)
        power = math.log2(arch['patch_size'] / cls.first_stride)
        if power != int(power):
            allowed = f'{cls.first_stride} times a power of two'
            raise cls._error("arch['patch_size']", arch['patch_size'], allowed)
        grids = cls.grid_sizes(arch)
        for before, after in pairwise(grids[: len(arch['depths'])]):
            if before not in (after, 2 * after):
                raise cls._error('the grids of arch', grids, 'each as large as the one before it, or half as large')
        return arch

    def is_global(self, stage: int, index: int) -> bool:
        is_last = index == self.arch['depths'][stage] - 1
        return self.global_blocks == 'all' or (self.global_blocks == 'last' and is_last)

    def stage_stride(self, stage: int) -> int | float:
        return 2**stage * (4 if self.shrink else self.first_stride)

    def grid_stride(self, stage: int) -> float:
        """The same of what the stage itself gives, before it is rescaled."""
        grids = self.grid_sizes(self.arch)
        return self.arch['patch_size'] * (8 / 7 if self.shrink else 1) * grids[0] / grids[stage]

    def build(self, in_channels: int, drop_paths: Sequence[Sequence[float]], with_cp: bool) -> None:
        super().build(in_channels, drop_paths, with_cp)
        self.pyramid = nn.ModuleList(nn.Identity() for _ in drop_paths)
        for i in self.out_indices:
            dim, stride = self.arch['dims'][i], self.stage_stride(i)
            self.pyramid[i] = Rescaling(dim, round(math.log2(self.grid_stride(i) / stride)), stride, self.make_norm)

    def make_stem(self, in_channels: int, dim: int) -> nn.Module:
        grids, patch_size = self.grid_sizes(self.arch), self.arch['patch_size']
        largest = patch_size * grids[0] // min(grids[: len(self.arch['depths'])])
        return PatchStem(in_channels, dim, patch_size, largest // 7 * 8 if self.shrink else largest, self.shrink)

    def make_downsample(self, in_dim: int, dim: int, stage: int) -> nn.Module:
        before, after = self.grid_sizes(self.arch)[stage - 1 : stage + 1]
        step = before // after
        return ConvDownsample(in_dim, dim, step, step, padding=0) if (in_dim, step) != (dim, 1) else nn.Identity()

    @classmethod
    def arch_like(cls, weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
        sizes, stem = super().arch_like(weights), weights.get('stem.conv.weight')
        return None if sizes is None or stem is None or stem.ndim != 4 else sizes | dict(patch_size=stem.shape[3])

    def to_output(self, stage: int, x: Tensor, size: Sequence[int]) -> Tensor:
        return self.pyramid[stage](x, size=size)  # hooks see tensors only
