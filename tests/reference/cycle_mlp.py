"""CycleMLP (arXiv 2107.10224): facts and reference implementation."""

import functools

import torch
from torch import Tensor, nn

from .common import (
    OF_PAPERS,
    Drawn,
    Published,
    Reference,
    Shapes,
    linear,
    norm_over,
    overlapping_downsample,
    read_each,
    weighted_sum,
    weighted_sum_shapes,
)


class CycleMLP(Reference):
    published = {
        'b1': Published(15_155_400, 14_643_424, 2.122),
        'b2': Published(26_802_504, 26_290_528, 3.876),
        'b3': Published(38_385_720, 37_873_744, 6.831),
        'b4': Published(51_796_552, 51_284_576, 10.027),
        'b5': Published(75_747_280, 74_979_624, 12.232),
    }
    custom = [dict(depths=(1, 2, 1, 1), dims=(5, 7, 11, 4), mlp_ratios=(1, 2, 3, 4)), dict(depths=(2, 1), dims=(12, 8))]
    fingerprints = ('classifier_b1', 'dense_b1')
    configs = {
        'mask_rcnn_1x_coco': 'b1 b2 b3 b4 b5',
        'retinanet_1x_coco': 'b1 b2 b3 b4 b5',
        'semantic_fpn_ade20k-512x512': 'b1 b2 b3 b4 b5',
    }
    left_out = {'CycleFC offsets': '.offset'}
    kernel = ()

    def drawn_by_paper(self, layer: nn.Module) -> Drawn | None:
        return OF_PAPERS if isinstance(layer, nn.Linear) else None

    def first_size(self, size: int) -> int:
        return max(1, (size + 1) // 4)

    def downsample_shapes(self, shapes: Shapes, arch: dict, stage: int) -> None:
        dims = arch['dims']
        if stage == 0:
            shapes.layer('patch_embed.proj', dims[0], 3, 7, 7)
        else:
            shapes.layer(f'network.{2 * stage - 1}.proj', dims[stage], dims[stage - 1], 3, 3)

    def token_mixing_shapes(self, shapes: Shapes, name: str, dim: int, arch: dict, stage: int) -> None:
        weighted_sum_shapes(shapes, f'{name}.attn', dim, self.kernel, bias=False)
        for layer in ('sfc_h', 'sfc_w'):
            shapes.layer(f'{name}.attn.{layer}', dim, dim, 1, 1)
            shapes[f'{name}.attn.{layer}.offset'] = (1, 2 * dim, 1, 1)

    def official_weights(self, shapes: dict, *args, **kwargs) -> dict[str, Tensor]:
        weights = super().official_weights(shapes, *args, **kwargs)
        for name in weights:
            if name.endswith('.offset'):  # pairs (dy, dx) for each channel
                offsets = torch.tensor([cycle_offset(i) for i in range(weights[name].shape[1] // 2)])
                weights[name].zero_()[0, '.sfc_h.' in name :: 2, 0, 0] = offsets.to(weights[name])
        return weights

    norm = staticmethod(functools.partial(norm_over, (1,)))
    downsample = staticmethod(overlapping_downsample)

    def token_mixing(self, w: dict, name: str, x: Tensor, arch: dict, stage: int, index: int) -> Tensor:
        name = f'{name}.attn'  # the names describe the kernel: sfc_h has the shape (1, 3) and shifts along the width
        h = linear(w, f'{name}.sfc_h', cycle_shift(x, 3))
        v = linear(w, f'{name}.sfc_w', cycle_shift(x, 2))
        return weighted_sum(w, name, x, h, v)


def cycle_offset(channel: int) -> int:
    return (channel + 1) % 3 - 1


def cycle_shift(x: Tensor, axis: int) -> Tensor:
    """Shift channel by channel: out[p] = in[p + offset]."""
    return read_each(x, map(cycle_offset, range(x.shape[1])), axis)
