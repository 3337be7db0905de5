"""Networks that were published for images of one size, as feature pyramids for images of any size.

Their token mixing is a matrix over the positions of a grid of patches. As in ViTDet (arXiv 2203.16527), most blocks mix
inside windows of that size. A few blocks mix the complete feature map, resized to that size. The output of each stage
is rescaled to strides of 4, 8, 16 and 32. On an image of the published size, all values of
`global_blocks` give the published network, followed by the pyramid.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .. import kernels
from ..kernels.compat import crop, pad_right_bottom, resampling_dtype, round_up, sizes_match
from .base import MLPBackbone
from .layers import ConvDownsample, MakeNorm, PatchStem, in_nchw

GLOBAL_BLOCKS = ('last', 'all', 'none')


class GridMixing(nn.Module):
    """Token mixing of (B, H, W, dim) by layers for (B, grid, grid, dim).

    It mixes in windows of the zero-padded feature map, or, if it is global, on the feature map resized to one window.
    """

    def __init__(self, grid: int, is_global: bool):
        super().__init__()
        self.grid, self.is_global = grid, is_global

    def mix(self, x: Tensor) -> Tensor:
        """Mix (B, rows * grid, columns * grid, dim), each window of (grid, grid) separately, to the same size."""
        raise NotImplementedError

    def project(self, x: Tensor) -> Tensor:
        """Apply the pointwise projection after the mixing, (B, H, W, ...) to dim, once the padding is cropped."""
        return x

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        if self.is_global:
            return resized(self.project(self.mix(resized(x, self.grid, self.grid))), height, width)
        rows, columns = (round_up(side, self.grid) for side in (height, width))
        x = in_nchw(partial(pad_right_bottom, height=rows, width=columns), x)
        return self.project(self.mix(x)[:, :height, :width])


def resized(x: Tensor, height: int, width: int) -> Tensor:
    """Resize (B, H, W, C) to (B, height, width, C), bilinear with antialiasing."""
    if sizes_match(x.shape[1:3], (height, width)):
        return x
    # Products with matrices support every dtype and have a deterministic gradient.
    batch, rows, columns, channels = x.shape
    x = _resampling(rows, height, x).expand(batch, -1, -1).bmm(x.reshape(batch, rows, -1))
    x = x.view(batch * height, columns, channels)
    return _resampling(columns, width, x).expand(x.shape[0], -1, -1).bmm(x).view(batch, height, width, channels)


def _resampling(source: int, target: int, like: Tensor) -> Tensor:
    """Return the matrix (target, source): each new pixel as a mean of old ones, with linearly decreasing weights."""
    new, old = (torch.arange(size, dtype=resampling_dtype(like), device=like.device) + 0.5 for size in (target, source))
    reach = max(source, target) / target
    weights = (1 - (old - new[:, None] * (source / target)).abs() / reach).clamp(min=0)
    return (weights / weights.sum(1, keepdim=True)).to(like.dtype)


class Doubling(nn.ConvTranspose2d):
    """A transposed convolution that doubles height and width of (B, dim, H, W): four pixels for each pixel."""

    def __init__(self, dim: int):
        super().__init__(dim, dim, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return kernels.upsample(x, self.weight, self.bias)


class Rescaling(nn.Sequential):
    """Rescaling of the height and width of a stage's feature map, (B, dim, H, W), by 2**doublings.

    Transposed convolutions enlarge it, max pooling reduces it. The result is cropped to the `size` of the image,
    divided by `stride` and rounded up.
    """

    def __init__(self, dim: int, doublings: int, stride: int | float, norm: MakeNorm):
        layers: dict[str, nn.Module] = {}
        for i in range(doublings):
            layers |= {f'norm{i}': norm(dim), f'gelu{i}': nn.GELU()} if i else {}
            layers[f'up{i}'] = Doubling(dim)
        if doublings < 0:
            layers['pool'] = nn.MaxPool2d(2**-doublings, ceil_mode=True)
        super().__init__(OrderedDict(layers))
        self.stride = stride

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:  # type: ignore[override]
        halves = int(2 * self.stride)  # a stride may be 3.5
        height, width = ((2 * side + halves - 1) // halves for side in size)
        return crop(super().forward(x), height, width)


class FixedGridMLP(MLPBackbone):
    """A backbone whose stages are blocks on fixed grids of patches, with feature maps of strides 4, 8, 16 and 32.

    Args:
        global_blocks: the blocks that mix on the complete feature map instead of in windows: the ``'last'`` of each
            stage, ``'all'`` or ``'none'``.
    """

    first_stride: ClassVar[int | float] = 4
    """Stride of the first output, in pixels of the image that the stem splits.

    The patch size is this stride times a power of two.
    """
    shrink = False  # whether images are resized by 7/8 first

    def __init__(self, *args: Any, global_blocks: str = 'last', **kwargs: Any):
        if global_blocks not in GLOBAL_BLOCKS:
            raise self._error('global_blocks', global_blocks, ', '.join(GLOBAL_BLOCKS))
        self.global_blocks = global_blocks
        super().__init__(*args, **kwargs)

    @classmethod
    def grid_sizes(cls, arch: Mapping[str, Any]) -> Sequence[int]:
        """Return the patches along each side of the feature map of every stage, on an image of the published size."""
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
        """Whether a block mixes on the complete feature map."""
        is_last = index == self.arch['depths'][stage] - 1
        return self.global_blocks == 'all' or (self.global_blocks == 'last' and is_last)

    def stage_stride(self, stage: int) -> int | float:
        return 2**stage * (4 if self.shrink else self.first_stride)

    def grid_stride(self, stage: int) -> float:
        """Return the stride of the feature map of a stage before it is rescaled."""
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
        multiple = largest // 7 * 8 if self.shrink else largest
        return PatchStem(in_channels, dim, patch_size, multiple, shrink=self.shrink)

    def make_downsample(self, in_dim: int, dim: int, stage: int) -> nn.Module:
        before, after = self.grid_sizes(self.arch)[stage - 1 : stage + 1]
        step = before // after
        return ConvDownsample(in_dim, dim, step, step) if (in_dim, step) != (dim, 1) else nn.Identity()

    @classmethod
    def _infer_arch(cls, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        return super()._infer_arch(weights) | dict(patch_size=weights['stem.conv.weight'].shape[3])

    def to_output(self, stage: int, x: Tensor, size: Sequence[int]) -> Tensor:
        return self.pyramid[stage](x, size=size)  # hooks see tensors only
