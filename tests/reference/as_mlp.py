"""AS-MLP (arXiv 2107.08391): facts and reference implementation."""

import functools

import torch
from torch import Tensor

from .common import Published, Reference, Shapes, convolution, gelu, linear, norm_over, read, read_each


class ASMLP(Reference):
    published = {
        'tiny': Published(28_282_696, 27_515_040, 4.350),
        'small': Published(49_594_696, 48_827_040, 8.512),
        'base': Published(87_752_808, 86_729_600, 15.126),
    }
    defaults = dict(mlp_ratios=(4, 4, 4, 4), shift_size=5)
    custom = [
        dict(depths=(1, 2, 1, 1), dims=(5, 7, 11, 3), mlp_ratios=(1, 2, 3, 4), shift_size=7),
        dict(depths=(1, 1, 1, 1), dims=(9, 6, 4, 8), shift_size=4),
        dict(depths=(2, 1), dims=(12, 8), shift_size=1),
    ]
    fingerprints = ('classifier_tiny', 'dense_tiny')
    configs = {
        'mask_rcnn_1x_coco': 'tiny small',
        'mask_rcnn_3x_coco': 'tiny small',
        'cascade_mask_rcnn_1x_coco': 'tiny small base',
        'cascade_mask_rcnn_3x_coco': 'tiny small base',
    }

    def block_name(self, stage: int, index: int, arch: dict) -> str:
        return f'layers.{stage}.blocks.{index}'

    def output_norm_name(self, stage: int) -> str:
        return f'norm{stage}'

    def downsample_shapes(self, shapes: Shapes, arch: dict, stage: int) -> None:
        dims = arch['dims']
        if stage == 0:
            shapes.layer('patch_embed.proj', dims[0], 3, 4, 4)
            shapes.norm('patch_embed.norm', dims[0])
        else:
            dim, name = dims[stage - 1], f'layers.{stage - 1}.downsample'
            shapes.norm(f'{name}.norm', 4 * dim)
            shapes.layer(f'{name}.reduction', dims[stage], 4 * dim, 1, 1, bias=False)

    def token_mixing_shapes(self, shapes: Shapes, name: str, dim: int, arch: dict, stage: int) -> None:
        for layer in ('conv1', 'conv2_1', 'conv2_2', 'conv3'):
            shapes.layer(f'{name}.axial_shift.{layer}', dim, dim, 1, 1)
        for layer in ('norm1', 'norm2'):
            shapes.norm(f'{name}.axial_shift.{layer}', dim)

    norm = staticmethod(functools.partial(norm_over, (1, 2, 3)))

    def downsample(self, w: dict, x: Tensor, stage: int) -> Tensor:
        height, width = x.shape[2:]
        if stage == 0:
            x = read(read(x, torch.arange(-(-height // 4) * 4), 2), torch.arange(-(-width // 4) * 4), 3)
            return self.norm(w, 'patch_embed.norm', convolution(w, 'patch_embed.proj', x, stride=4))
        rows, columns = torch.arange(0, height, 2), torch.arange(0, width, 2)
        x = torch.cat([read(read(x, rows + r, 2), columns + c, 3) for r, c in ((0, 0), (1, 0), (0, 1), (1, 1))], 1)
        name = f'layers.{stage - 1}.downsample'
        return linear(w, f'{name}.reduction', self.norm(w, f'{name}.norm', x))

    def token_mixing(self, w: dict, name: str, x: Tensor, arch: dict, stage: int, index: int) -> Tensor:
        name = f'{name}.axial_shift'
        x = gelu(self.norm(w, f'{name}.norm1', linear(w, f'{name}.conv1', x)))
        along_w = gelu(linear(w, f'{name}.conv2_1', axial_shift(x, arch['shift_size'], 3)))
        along_h = gelu(linear(w, f'{name}.conv2_2', axial_shift(x, arch['shift_size'], 2)))
        return linear(w, f'{name}.conv3', self.norm(w, f'{name}.norm2', along_w + along_h))


def axial_shift(x: Tensor, shift_size: int, axis: int) -> Tensor:
    """Shift channel by channel: out[p] = in[p - d]."""
    chunk = -(-x.shape[1] // shift_size)
    return read_each(x, [shift_size // 2 - c // chunk for c in range(x.shape[1])], axis)
