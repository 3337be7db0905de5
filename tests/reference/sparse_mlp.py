"""Sparse-MLP (arXiv 2109.02008): facts and reference implementation. No code was published, so the names are ours."""

import torch
from torch import Tensor

from .common import Published, Shapes, gelu
from .mlp_mixer import MLPMixer


class SparseMLP(MLPMixer):
    published = {  # counted, since the sizes are this project's
        's16': Published(34_991_256, 37_629_616, 4.783),
        'b16': Published(94_245_032, 100_562_368, 14.804),
        'l16': Published(267_015_896, 278_585_072, 48.409),
    }
    defaults = MLPMixer.defaults | dict(
        sparse_blocks=2, token_experts=8, token_choices=1, channel_experts=4, channel_choices=2
    )
    custom = [
        dict(depths=(1, 2, 1, 1), dims=(5, 7, 11, 4), mlp_ratios=(1, 2, 3, 4), grid_size=3, sparse_blocks=3),
        dict(depths=(2, 1), dims=(12, 12), patch_size=4, grid_size=5, sparse_blocks=1, token_choices=3),
        dict(depths=(1, 1), dims=(6, 8), grid_size=2, token_experts=2, channel_experts=1, channel_choices=1),
    ]
    fingerprints = ()
    configs = dict.fromkeys(('mask_rcnn_1x_coco', 'upernet_ade20k-512x512', 'semantic_fpn_ade20k-512x512'), 's16 b16')

    def is_sparse(self, name: str, arch: dict) -> bool:
        return int(name.split('.')[1]) >= sum(arch['depths']) - arch['sparse_blocks']

    def channel_mixing_shapes(self, shapes: Shapes, name: str, dim: int, arch: dict, stage: int) -> None:
        if not self.is_sparse(name, arch):
            return super().channel_mixing_shapes(shapes, name, dim, arch, stage)
        hidden = arch['mlp_ratios'][stage] * dim
        return expert_shapes(shapes, f'{name}.channel_mixing', arch['channel_experts'], dim, hidden)

    def token_mixing_shapes(self, shapes: Shapes, name: str, dim: int, arch: dict, stage: int) -> None:
        if not self.is_sparse(name, arch):
            return super().token_mixing_shapes(shapes, name, dim, arch, stage)
        tokens, name = arch['grid_size'] ** 2, f'{name}.token_mixing'
        shapes.layer(f'{name}.fewer_channels', dim // 2, dim)
        shapes.layer(f'{name}.more_channels', dim, dim // 2)
        shapes.layer(f'{name}.more_tokens', 2 * tokens, tokens)
        shapes.layer(f'{name}.fewer_tokens', tokens, 2 * tokens)
        return expert_shapes(shapes, f'{name}.mlp', arch['token_experts'], 2 * tokens, dim // 2)

    def mix(self, w: dict, name: str, x: Tensor, arch: dict) -> Tensor:
        if not self.is_sparse(name, arch):
            return super().mix(w, name, x, arch)
        name = f'{name}.token_mixing'
        y = along(w, f'{name}.fewer_channels', x.flatten(2), 1)
        y = along(w, f'{name}.more_tokens', y, 2)
        y = torch.stack([mixture(w, f'{name}.mlp', items, arch['token_choices']) for items in y])
        return along(w, f'{name}.more_channels', along(w, f'{name}.fewer_tokens', y, 2), 1).reshape(x.shape)

    def channels(self, w: dict, name: str, x: Tensor, arch: dict) -> Tensor:
        if not self.is_sparse(name, arch):
            return super().channels(w, name, x, arch)
        items = x.movedim(1, 3)
        mixed = mixture(w, f'{name}.channel_mixing', items.flatten(0, 2), arch['channel_choices'])
        return mixed.reshape(items.shape).movedim(3, 1)


def expert_shapes(shapes: Shapes, name: str, experts: int, dim: int, hidden: int) -> None:
    shapes[f'{name}.router.weight'] = (experts, dim)
    for layer, (out, into) in dict(fc1=(hidden, dim), fc2=(dim, hidden)).items():
        shapes[f'{name}.{layer}.weight'], shapes[f'{name}.{layer}.bias'] = (experts, out, into), (experts, out)


def along(w: dict, name: str, x: Tensor, axis: int) -> Tensor:
    return (x.movedim(axis, -1) @ w[f'{name}.weight'].T + w[f'{name}.bias']).movedim(-1, axis)


def mixture(w: dict, name: str, items: Tensor, choices: int) -> Tensor:
    """Apply the chosen experts one by one to each item (N, dim)."""
    outs = []
    for item in items:
        scores = torch.exp(w[f'{name}.router.weight'] @ item)
        fractions, out = scores / scores.sum(), 0
        for expert in sorted(range(len(fractions)), key=lambda i: -fractions[i].item())[:choices]:
            w1, b1, w2, b2 = (
                w[f'{name}.{layer}.{key}'][expert] for layer in ('fc1', 'fc2') for key in ('weight', 'bias')
            )
            out = out + fractions[expert] * (w2 @ gelu(w1 @ item + b1) + b2)
        outs.append(out)
    return torch.stack(outs)
