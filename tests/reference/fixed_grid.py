"""Base class of the fixed-grid families: windows, global blocks and the pyramid."""

import functools
import math
from collections.abc import Iterable

import torch
from torch import Tensor

from .common import Reference, Shapes, convolution, gelu, linear, norm_over, read


class FixedGrid(Reference):
    """Network with token mixing for one grid size. Feature maps are (B, C, H, W)."""

    fresh = 'pyramid.'
    resizes = False
    """Whether images are first resized by 7/8."""
    norm = staticmethod(functools.partial(norm_over, (1,)))

    def grids(self, arch: dict) -> list[int]:
        raise NotImplementedError

    def mix(self, w: dict, name: str, x: Tensor, arch: dict) -> Tensor:
        """Apply the published token mixing of a block to (B, C, grid, grid)."""
        raise NotImplementedError

    def doublings(self, arch: dict) -> list[int]:
        """Return how often each stage's feature map is doubled for its output, or halved if negative."""
        smallest = 3.5 if self.resizes else 4
        grids = self.grids(arch)
        strides = [arch['patch_size'] * grids[0] / grid for grid in grids]
        return [round(math.log2(stride / smallest / 2**i)) for i, stride in enumerate(strides)]

    def output_norm_name(self, stage: int) -> str:
        return f'norms.{stage}'  # published dense models do not exist

    def official_shapes(self, arch: dict, norms: Iterable[int] = (), classes: int = 0) -> Shapes:
        shapes = super().official_shapes(arch, norms, classes)
        arch = {**self.defaults, **arch}
        if classes:
            return shapes
        for i, (dim, doublings) in enumerate(zip(arch['dims'], self.doublings(arch), strict=False)):
            for j in range(max(0, doublings)):
                shapes.layer(f'pyramid.{i}.up{j}', dim, dim, 2, 2)
                if j:
                    self.norm_shapes(shapes, f'pyramid.{i}.norm{j}', dim)
        return shapes

    def forward(self, w: dict, x: Tensor, arch: dict, global_blocks: str = 'last') -> list[Tensor]:
        arch, size, outs = {**self.defaults, **arch}, x.shape[2:], []
        grids = self.grids(arch)
        for i, depth in enumerate(arch['depths']):
            x = self.stem_of(w, x, arch) if i == 0 else self.between(w, x, arch, i)
            for j in range(depth):
                name = self.block_name(i, j, arch)
                is_global = global_blocks == 'all' or (global_blocks == 'last' and j == depth - 1)
                y = self.norm(w, f'{name}.norm1', x)
                mix = functools.partial(self.mix, w, name, arch=arch)
                x = x + (on_the_complete_map if is_global else in_windows)(mix, y, grids[i])
                x = x + self.channels(w, name, self.norm(w, f'{name}.norm2', x), arch)
            out = self.rescaled(w, f'pyramid.{i}', x, self.doublings(arch)[i])
            height, width = (math.ceil(side / (4 * 2**i)) for side in size)
            out, norm = out[:, :, :height, :width], self.output_norm_name(i)
            outs.append(self.norm(w, norm, out) if f'{norm}.weight' in w else out)
        return outs

    def stem_of(self, w: dict, x: Tensor, arch: dict) -> Tensor:
        grids = self.grids(arch)
        multiple = arch['patch_size'] * grids[0] // min(grids)
        multiple = multiple * 8 // 7 if self.resizes else multiple
        sides = [math.ceil(side / multiple) * multiple for side in x.shape[2:]]
        x = read(read(x, torch.arange(sides[0]), 2), torch.arange(sides[1]), 3)
        x = resized(x, [side * 7 // 8 for side in sides]) if self.resizes else x
        return convolution(w, self.stem, x, stride=arch['patch_size'])

    def between(self, w: dict, x: Tensor, arch: dict, stage: int) -> Tensor:
        """Apply the layer before a stage: nothing, or a convolution without overlap."""
        name, grids = self.between_name(stage, arch), self.grids(arch)
        return convolution(w, name, x, stride=grids[stage - 1] // grids[stage]) if f'{name}.weight' in w else x

    def channels(self, w: dict, name: str, x: Tensor, arch: dict) -> Tensor:
        fc1, fc2 = (f'{name}.{self.channel_mlp}.{layer}' for layer in ('fc1', 'fc2'))
        return linear(w, fc2, gelu(linear(w, fc1, x)))

    def rescaled(self, w: dict, name: str, x: Tensor, doublings: int) -> Tensor:
        for j in range(doublings):
            if j:
                x = gelu(self.norm(w, f'{name}.norm{j}', x))
            weight, bias = w[f'{name}.up{j}.weight'], w[f'{name}.up{j}.bias']
            out = x.new_zeros(x.shape[0], weight.shape[1], 2 * x.shape[2], 2 * x.shape[3])
            for row in range(2):
                for column in range(2):
                    values = torch.einsum('co,bchw->bohw', weight[:, :, row, column], x)
                    out[:, :, row::2, column::2] = values + bias[:, None, None]
            x = out
        for _ in range(-doublings):
            rows, columns = (range(0, side, 2) for side in x.shape[2:])
            x = torch.stack(
                [torch.stack([x[:, :, r : r + 2, c : c + 2].amax((2, 3)) for c in columns], 2) for r in rows], 2
            )
        return x

    def between_name(self, stage: int, arch: dict) -> str:
        """Return the official name of the layer before a stage."""
        raise NotImplementedError

    def downsample_shapes(self, shapes: Shapes, arch: dict, stage: int) -> None:
        dims, grids = arch['dims'], self.grids(arch)
        if stage == 0:
            shapes.layer(self.stem, dims[0], 3, arch['patch_size'], arch['patch_size'])
        elif (dims[stage], grids[stage]) != (dims[stage - 1], grids[stage - 1]):
            step = grids[stage - 1] // grids[stage]
            shapes.layer(self.between_name(stage, arch), dims[stage], dims[stage - 1], step, step)


def in_windows(mix, x: Tensor, grid: int) -> Tensor:
    """Mix each window of (grid, grid) separately. Windows at the right and the bottom are padded with zeros."""
    out = torch.zeros_like(x)
    for top in range(0, x.shape[2], grid):
        for left in range(0, x.shape[3], grid):
            rows, columns = (torch.arange(start, start + grid) for start in (top, left))
            mixed = mix(read(read(x, rows, 2), columns, 3))
            height, width = out[:, :, top : top + grid, left : left + grid].shape[2:]
            out[:, :, top : top + grid, left : left + grid] = mixed[:, :, :height, :width]
    return out


def on_the_complete_map(mix, x: Tensor, grid: int) -> Tensor:
    return resized(mix(resized(x, [grid, grid])), x.shape[2:])


def resized(x: Tensor, size: Iterable[int]) -> Tensor:
    """Resize bilinearly with antialiasing: a pixel is a mean of pixels weighted by a triangle around its centre."""
    for axis, target in zip((2, 3), size, strict=True):
        source = x.shape[axis]
        reach, pixels = max(1, source / target), []
        for i in range(target):
            centre = (i + 0.5) * source / target
            weights = {j: 1 - abs(j + 0.5 - centre) / reach for j in range(source) if abs(j + 0.5 - centre) < reach}
            total = sum(weights.values())
            pixels.append(sum(x.select(axis, j) * weight / total for j, weight in weights.items()))
        x = torch.stack(pixels, axis)
    return x
