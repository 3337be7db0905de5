"""MLP-Mixer, Vision Permutator and Sparse-MLP as published, in windows and with a pyramid as plainly as possible.

A window of the published size goes through the published code; a global block resizes with ``F.interpolate``.
Parameters have the official names, and this project's where nothing was published.
"""

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from published import ChannelMLP, Reweight
from torch import Tensor, nn


class MixerTokens(nn.Module):
    """(B, grid, grid, C), by a linear layer over the positions of each channel."""

    def __init__(self, dim: int, grid: int):
        super().__init__()
        self.mlp_tokens = ChannelMLP(grid**2, dim // 2, nn.Linear)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp_tokens(x.flatten(1, 2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)


class Permute(nn.Module):
    def __init__(self, dim: int, segments: int):
        super().__init__()
        self.segments = segments
        self.mlp_c, self.mlp_h, self.mlp_w = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.reweight = Reweight(dim, dim // 4, nn.Linear, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, height, width, channels = x.shape
        s = channels // self.segments
        h = x.reshape(b, height, width, self.segments, s).permute(0, 3, 2, 1, 4)
        h = self.mlp_h(h.reshape(b, self.segments, width, height * s))
        h = h.reshape(b, self.segments, width, height, s).permute(0, 3, 2, 1, 4).reshape(x.shape)
        w = x.reshape(b, height, width, self.segments, s).permute(0, 1, 3, 2, 4)
        w = self.mlp_w(w.reshape(b, height, self.segments, width * s))
        w = w.reshape(b, height, self.segments, width, s).permute(0, 1, 3, 2, 4).reshape(x.shape)
        c = self.mlp_c(x)
        pooled = (h + w + c).permute(0, 3, 1, 2).flatten(2).mean(2)
        a = self.reweight.weights(pooled, (b, 1, 1, channels))
        return self.proj(h * a[0] + w * a[1] + c * a[2])


class ExpertLinear(nn.Module):
    def __init__(self, experts: int, in_dim: int, out_dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, out_dim, in_dim))
        self.bias = nn.Parameter(torch.empty(experts, out_dim))

    def forward(self, x: Tensor, expert: int) -> Tensor:
        return F.linear(x, self.weight[expert], self.bias[expert])


class Experts(nn.Module):
    def __init__(self, dim: int, hidden_dim: int, experts: int, choices: int):
        super().__init__()
        self.experts, self.choices = experts, choices
        self.router = nn.Linear(dim, experts, bias=False)
        self.fc1, self.fc2 = ExpertLinear(experts, dim, hidden_dim), ExpertLinear(experts, hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        items = x.flatten(0, -2)
        gates, chosen = self.router(items).softmax(1).topk(self.choices)
        out = torch.zeros_like(items)
        for expert in range(self.experts):
            rows, ranks = (chosen == expert).nonzero(as_tuple=True)
            mixed = self.fc2(F.gelu(self.fc1(items[rows], expert)), expert)
            out = out.index_add(0, rows, (mixed * gates[rows, ranks, None]).to(out))
        return out.reshape(x.shape)


class SparseTokens(nn.Module):
    def __init__(self, dim: int, grid: int, experts: int, choices: int):
        super().__init__()
        tokens = grid**2
        self.fewer_channels, self.more_channels = nn.Linear(dim, dim // 2), nn.Linear(dim // 2, dim)
        self.more_tokens, self.fewer_tokens = nn.Linear(tokens, 2 * tokens), nn.Linear(2 * tokens, tokens)
        self.mlp = Experts(2 * tokens, dim // 2, experts, choices)

    def forward(self, x: Tensor) -> Tensor:
        y = self.more_tokens(self.fewer_channels(x).flatten(1, 2).transpose(1, 2))
        return self.more_channels(self.fewer_tokens(self.mlp(y)).transpose(1, 2)).reshape(x.shape)


class GridBlock(nn.Module):
    """A block on (B, H, W, C); `parts` are its token and channel mixing under their official names."""

    def __init__(self, dim: int, grid: int, is_global: bool, norm, parts: dict[str, nn.Module]):
        super().__init__()
        self.grid, self.is_global = grid, is_global
        self.norm1, self.norm2 = norm(dim), norm(dim)
        self.names = list(parts)
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        tokens, channels = (self.get_submodule(name) for name in self.names)
        x = x + (self.on_the_whole if self.is_global else self.in_windows)(tokens, self.norm1(x))
        return x + channels(self.norm2(x))

    def in_windows(self, mix: nn.Module, x: Tensor) -> Tensor:
        (b, height, width, channels), g = x.shape, self.grid
        x = F.pad(x, (0, 0, 0, -width % g, 0, -height % g))
        rows, columns = x.shape[1] // g, x.shape[2] // g
        x = x.reshape(b, rows, g, columns, g, channels).permute(0, 1, 3, 2, 4, 5).reshape(-1, g, g, channels)
        x = mix(x).reshape(b, rows, columns, g, g, channels).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(b, rows * g, columns * g, channels)[:, :height, :width]

    def on_the_whole(self, mix: nn.Module, x: Tensor) -> Tensor:
        def resized(x: Tensor, *size: int) -> Tensor:
            return resampled(x.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1)

        return resized(mix(resized(x, self.grid, self.grid)), *x.shape[1:3])


def resampled(x: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, H, W) in another size, in fp32 at least: PyTorch has no bf16 for it."""
    precise = x.to(torch.promote_types(x.dtype, torch.float32))
    return F.interpolate(precise, size, mode='bilinear', antialias=True).to(x.dtype)


class PublishedGridNetwork(nn.Module):
    """A family on fixed grids: (B, 3, H, W), H and W multiples of 32, to four feature maps (B, C, H / s, W / s).

    Args:
        family: MLPMixer, SparseMLP or VisionPermutator.
        arch: the full dict of a variant, as `backbone.arch` gives it.
    """

    def __init__(self, family: str, arch: dict):
        super().__init__()
        self.is_vip = family == 'VisionPermutator'
        self.patch = arch['patch_size']
        dims, depths = arch['dims'], arch['depths']
        grids = arch['segments'] if self.is_vip else [arch['grid_size']] * 4
        norm = partial(nn.LayerNorm, eps=1e-5 if self.is_vip else 1e-6)
        self.stem_name = 'patch_embed' if self.is_vip else 'stem'
        self.add_module(self.stem_name, nn.Module())
        self.get_submodule(self.stem_name).proj = nn.Conv2d(3, dims[0], self.patch, self.patch)
        layers, stages, stride = nn.ModuleList(), [], self.patch * (8 / 7 if self.is_vip else 1)
        self.pyramid, self.norms = nn.ModuleList(), nn.ModuleList(norm(dim) for dim in dims)
        for i, (dim, depth, grid) in enumerate(zip(dims, depths, grids, strict=True)):
            blocks = nn.ModuleList(
                GridBlock(dim, grid, j == depth - 1, norm, self.parts(arch, i, j, grid)) for j in range(depth)
            )
            stages.append([blocks])
            if i and (dims[i - 1], grids[i - 1]) != (dim, grid):
                step = grids[i - 1] // grid
                down, stride = nn.Module(), stride * step
                down.proj = nn.Conv2d(dims[i - 1], dim, step, step)
                layers.append(down)
                stages[-1].insert(0, down)
            layers.extend([blocks] if self.is_vip else blocks)
            doublings = round(math.log2(stride / (4 * 2**i)))
            up = nn.Module() if doublings > 0 else nn.MaxPool2d(2**-doublings)
            for k in range(doublings):
                up.add_module(f'up{k}', nn.ConvTranspose2d(dim, dim, 2, 2))
                if k:
                    up.add_module(f'norm{k}', norm(dim))
            self.pyramid.append(up)
        self.add_module('network' if self.is_vip else 'blocks', layers)
        self.order = stages

    def parts(self, arch: dict, stage: int, index: int, grid: int) -> dict[str, nn.Module]:
        dim = arch['dims'][stage]
        hidden_dim = arch['mlp_ratios'][stage] * dim
        if self.is_vip:
            return {'attn': Permute(dim, grid), 'mlp': ChannelMLP(dim, hidden_dim, nn.Linear)}
        if sum(arch['depths'][stage:]) - index <= arch.get('sparse_blocks', 0):
            return {
                'token_mixing': SparseTokens(dim, grid, arch['token_experts'], arch['token_choices']),
                'channel_mixing': Experts(dim, hidden_dim, arch['channel_experts'], arch['channel_choices']),
            }
        tokens = MixerTokens(dim, grid)  # one level more than the official names have
        return {'tokens': tokens, 'mlp_channels': ChannelMLP(dim, hidden_dim, nn.Linear)}

    def state_dict(self, *args, **kwargs) -> dict[str, Tensor]:
        return {name.replace('.tokens.', '.'): tensor for name, tensor in super().state_dict(*args, **kwargs).items()}

    def forward(self, x: Tensor) -> list[Tensor]:
        if self.is_vip:
            x = resampled(x, [side * 7 // 8 for side in x.shape[2:]])
        x = self.get_submodule(self.stem_name).proj(x).permute(0, 2, 3, 1)
        outs = []
        for parts, up, norm in zip(self.order, self.pyramid, self.norms, strict=True):
            for part in parts:
                if isinstance(part, nn.ModuleList):
                    for block in part:
                        x = block(x)
                else:
                    x = part.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            out = self.rescaled(up, x.permute(0, 3, 1, 2))
            outs.append(norm(out.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous())
        return outs

    @staticmethod
    def rescaled(up: nn.Module, x: Tensor) -> Tensor:
        if isinstance(up, nn.MaxPool2d):
            return up(x) if up.kernel_size > 1 else x
        for name, layer in up.named_children():
            if name.startswith('norm'):
                continue
            if name != 'up0':
                norm = up.get_submodule(name.replace('up', 'norm'))
                x = F.gelu(norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
            x = layer(x)
        return x
