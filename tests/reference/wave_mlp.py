"""Wave-MLP (arXiv 2111.12294): facts and reference implementation."""

import torch
from torch import Tensor

from .common import (
    Published,
    Reference,
    Shapes,
    batch_norm,
    linear,
    norm_over,
    overlapping_downsample,
    read,
    weighted_sum,
    weighted_sum_shapes,
)


class WaveMLP(Reference):
    published = {
        't_dw': Published(15_286_472, 14_774_496, 2.163),
        't': Published(17_193_160, 16_681_184, 2.462),
        's': Published(30_708_040, 30_196_064, 4.522),
        'm': Published(44_056_632, 43_544_656, 7.872),
        'b': Published(63_586_360, 62_818_704, 10.215),
    }
    defaults = dict(mlp_ratios=(4, 4, 4, 4), group_norm=False, downsample_norm=True, depthwise_phase=False)
    custom = [
        dict(depths=(1, 2, 1, 1), dims=(5, 7, 11, 4), mlp_ratios=(1, 2, 3, 4), depthwise_phase=True),
        dict(depths=(1, 1, 2), dims=(9, 6, 4), group_norm=True, depthwise_phase=True),
        dict(depths=(2, 1), dims=(12, 8), group_norm=True, downsample_norm=False),
        dict(depths=(1, 1), dims=(5, 8), downsample_norm=False),
    ]
    fingerprints = ('classifier_t_dw', 'dense_t_dw')
    configs = {
        'mask_rcnn_1x_coco': 't_dw t s m b',
        'retinanet_1x_coco': 't_dw t s m b',
        'semantic_fpn_ade20k-512x512': 't_dw t',
    }

    def first_size(self, size: int) -> int:
        return max(1, (size + 1) // 4)

    def official_shapes(self, arch: dict, *args, **kwargs) -> Shapes:
        self.norm_shapes = Shapes.norm if arch.get('group_norm') else Shapes.batch_norm
        return super().official_shapes(arch, *args, **kwargs)

    def downsample_shapes(self, shapes: Shapes, arch: dict, stage: int) -> None:
        dims, name = arch['dims'], f'network.{2 * stage - 1}' if stage else 'patch_embed'
        shapes.layer(f'{name}.proj', dims[stage], *((dims[stage - 1], 3, 3) if stage else (3, 7, 7)))
        if arch['downsample_norm']:
            self.norm_shapes(shapes, f'{name}.norm', dims[stage])

    def token_mixing_shapes(self, shapes: Shapes, name: str, dim: int, arch: dict, stage: int) -> None:
        name, depthwise = f'{name}.attn', arch['depthwise_phase']
        weighted_sum_shapes(shapes, name, dim, self.kernel, bias=False, channel='fc_c')
        for along, kernel in (('h', (1, 7)), ('w', (7, 1))):
            shapes.layer(f'{name}.fc_{along}', dim, dim, 1, 1, bias=False)
            shapes.layer(f'{name}.tfc_{along}', dim, 2, *kernel, bias=False)
            theta = (1, 3, 3) if depthwise else (dim, 1, 1)
            shapes.layer(f'{name}.theta_{along}_conv.0', dim, *theta, bias=not depthwise)
            shapes.batch_norm(f'{name}.theta_{along}_conv.1', dim)

    def official_weights(self, shapes: dict, *args, **kwargs) -> dict[str, Tensor]:
        weights = super().official_weights(shapes, *args, **kwargs)
        for name in weights:
            if name.endswith('_conv.1.weight'):  # of a norm without 'norm' in its name
                weights[name] += 1
        return weights

    def norm(self, w: dict, name: str, x: Tensor) -> Tensor:
        return batch_norm(w, name, x) if f'{name}.running_mean' in w else norm_over((1, 2, 3), w, name, x)

    def downsample(self, w: dict, x: Tensor, stage: int) -> Tensor:
        x, name = overlapping_downsample(w, x, stage), f'network.{2 * stage - 1}' if stage else 'patch_embed'
        return self.norm(w, f'{name}.norm', x) if f'{name}.norm.weight' in w else x

    def token_mixing(self, w: dict, name: str, x: Tensor, arch: dict, stage: int, index: int) -> Tensor:
        h, v = (wave(w, f'{name}.attn', along, x, arch['depthwise_phase']) for along in 'hw')
        return weighted_sum(w, f'{name}.attn', x, h, v, channel='fc_c')


def wave(w: dict, name: str, along: str, x: Tensor, depthwise: bool) -> Tensor:
    """Sum two channels of seven neighbours for each output channel, from the real parts and then the imaginary ones."""
    theta = f'{name}.theta_{along}_conv'
    phase = depthwise_3x3(w[f'{theta}.0.weight'], x) if depthwise else linear(w, f'{theta}.0', x)
    phase, amplitude = batch_norm(w, f'{theta}.1', phase).clamp(min=0), linear(w, f'{name}.fc_{along}', x)
    components = torch.cat([amplitude * torch.cos(phase), amplitude * torch.sin(phase)], 1)
    weight, axis = w[f'{name}.tfc_{along}.weight'].flatten(2), 3 if along == 'h' else 2
    positions = torch.arange(x.shape[axis])
    return sum(
        weight[:, i, k, None, None] * read(components[:, i::2], positions + k - 3, axis)
        for i in range(2)
        for k in range(7)
    )


def depthwise_3x3(weight: Tensor, x: Tensor) -> Tensor:
    rows, columns = (torch.arange(size) for size in x.shape[2:])
    return sum(
        weight[:, 0, i, j, None, None] * read(read(x, rows + i - 1, 2), columns + j - 1, 3)
        for i in range(3)
        for j in range(3)
    )
