"""Networks for dense prediction as their published code computes them. Parameters have the official names.

AS-MLP shifts by roll, pad and narrow; CycleMLP's shift is a deformable convolution; Hire-MLP clones, rolls, pads and
permutes; Wave-MLP concatenates and convolves in groups. Everything else is 1x1 convolutions on NCHW (AS-MLP, Hire-MLP,
Wave-MLP) or linear layers on NHWC (CycleMLP).
"""

from functools import partial

import torch
import torch.nn.functional as F
from mmcv.ops import deform_conv2d
from torch import Tensor, nn


class ChannelMLP(nn.Module):
    def __init__(self, dim: int, hidden_dim: int, linear, out_dim: int | None = None):
        super().__init__()
        self.fc1 = linear(dim, hidden_dim)
        self.fc2 = linear(hidden_dim, out_dim or dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


def conv1x1(in_dim: int, out_dim: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(in_dim, out_dim, 1, bias=bias)


class AxialShift(nn.Module):
    def __init__(self, dim: int, shift_size: int):
        super().__init__()
        self.shift_size, self.pad = shift_size, shift_size // 2
        self.conv1, self.conv2_1, self.conv2_2, self.conv3 = (conv1x1(dim, dim) for _ in range(4))
        self.norm1, self.norm2 = nn.GroupNorm(1, dim), nn.GroupNorm(1, dim)

    def shift(self, x: Tensor, axis: int) -> Tensor:
        padded = F.pad(x, (self.pad, self.pad, self.pad, self.pad))
        chunks = padded.chunk(self.shift_size, 1)
        moved = torch.cat(
            [torch.roll(c, d, axis) for c, d in zip(chunks, range(-self.pad, self.pad + 1), strict=False)], 1
        )
        return moved.narrow(2, self.pad, x.shape[2]).narrow(3, self.pad, x.shape[3])

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(self.conv1(x)))
        w, h = F.gelu(self.conv2_1(self.shift(x, 3))), F.gelu(self.conv2_2(self.shift(x, 2)))
        return self.conv3(self.norm2(w + h))


class CycleFC(nn.Module):
    """Cycle layer on (B, C, H, W): a deformable 1x1 convolution that shifts each channel along one axis."""

    def __init__(self, dim: int, axis: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, dim, 1, 1))
        self.bias = nn.Parameter(torch.empty(dim))
        offset = torch.zeros(1, 2 * dim, 1, 1)
        offset[0, axis - 2 :: 2, 0, 0] = ((torch.arange(dim) + 1) % 3 - 1).to(offset)
        self.register_buffer('offset', offset)

    def forward(self, x: Tensor) -> Tensor:
        offset = self.offset.expand(len(x), -1, *x.shape[2:]).contiguous()
        out = deform_conv2d(x.contiguous(), offset, self.weight, 1, 0, 1, 1, x.shape[1], False, len(x))
        return out + self.bias[:, None, None]


class Reweight(ChannelMLP):
    def weights(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return the weights (3, *shape) of the three branches for (B, C) or (B, C, 1, 1)."""
        scores = super().forward(x).flatten(1)
        return scores.reshape(len(x), -1, 3).permute(2, 0, 1).softmax(0).reshape(3, *shape)


class CycleMixing(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.mlp_c = nn.Linear(dim, dim, bias=False)
        self.sfc_h, self.sfc_w = CycleFC(dim, axis=3), CycleFC(dim, axis=2)
        self.reweight = Reweight(dim, dim // 4, nn.Linear, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, _, channels = x.shape
        nchw = x.permute(0, 3, 1, 2)
        h, w = self.sfc_h(nchw).permute(0, 2, 3, 1), self.sfc_w(nchw).permute(0, 2, 3, 1)
        c = self.mlp_c(x)
        pooled = (h + w + c).permute(0, 3, 1, 2).flatten(2).mean(2)
        a = self.reweight.weights(pooled, (batch, 1, 1, channels))
        return self.proj(h * a[0] + w * a[1] + c * a[2])


class HireMixing(nn.Module):
    def __init__(self, dim: int, region: int, step: int):
        super().__init__()
        self.region, self.step = region, step
        for axis in 'hw':
            self.add_module(f'mlp_{axis}1', conv1x1(dim * region, dim // 2, bias=False))
            self.add_module(f'mlp_{axis}1_norm', nn.BatchNorm2d(dim // 2))
            self.add_module(f'mlp_{axis}2', conv1x1(dim // 2, dim * region))
        self.mlp_c = conv1x1(dim, dim)
        self.reweight = Reweight(dim, dim // 4, conv1x1, 3 * dim)
        self.proj = conv1x1(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        p = self.region
        pad_h, pad_w = -height % p, -width % p
        h, w = x.clone(), x.clone()
        if self.step:
            h, w = torch.roll(h, self.step, 2), torch.roll(w, self.step, 3)
        h = F.pad(h, (0, 0, 0, pad_h), 'circular') if pad_h else h
        w = F.pad(w, (0, pad_w, 0, 0), 'circular') if pad_w else w
        rows, columns = h.shape[2], w.shape[3]
        h = h.reshape(batch, channels, rows // p, p, width).permute(0, 1, 3, 2, 4).reshape(batch, -1, rows // p, width)
        w = w.reshape(batch, channels, height, columns // p, p).permute(0, 1, 4, 2, 3)
        w = w.reshape(batch, -1, height, columns // p)
        h = self.mlp_h2(F.relu(self.mlp_h1_norm(self.mlp_h1(h))))
        w = self.mlp_w2(F.relu(self.mlp_w1_norm(self.mlp_w1(w))))
        h = h.reshape(batch, channels, p, rows // p, width).permute(0, 1, 3, 2, 4).reshape(batch, channels, rows, width)
        w = w.reshape(batch, channels, p, height, columns // p).permute(0, 1, 3, 4, 2)
        w = w.reshape(batch, channels, height, columns)
        h, w = h.narrow(2, 0, height), w.narrow(3, 0, width)
        if self.step:
            h, w = torch.roll(h, -self.step, 2), torch.roll(w, -self.step, 3)
        c = self.mlp_c(x)
        a = self.reweight.weights(F.adaptive_avg_pool2d(h + w + c, 1), (batch, channels, 1, 1))
        return self.proj(h * a[0] + w * a[1] + c * a[2])


class WaveMixing(nn.Module):
    def __init__(self, dim: int, depthwise: bool):
        super().__init__()
        self.fc_h, self.fc_w, self.fc_c = (conv1x1(dim, dim, bias=False) for _ in range(3))
        self.tfc_h = nn.Conv2d(2 * dim, dim, (1, 7), padding=(0, 3), groups=dim, bias=False)
        self.tfc_w = nn.Conv2d(2 * dim, dim, (7, 1), padding=(3, 0), groups=dim, bias=False)
        for axis in 'hw':
            conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False) if depthwise else conv1x1(dim, dim)
            self.add_module(f'theta_{axis}_conv', nn.Sequential(conv, nn.BatchNorm2d(dim), nn.ReLU()))
        self.reweight = Reweight(dim, dim // 4, conv1x1, 3 * dim)
        self.proj = conv1x1(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        phase_h, phase_w = self.theta_h_conv(x), self.theta_w_conv(x)
        h, w, c = self.fc_h(x), self.fc_w(x), self.fc_c(x)
        h = self.tfc_h(torch.cat([h * torch.cos(phase_h), h * torch.sin(phase_h)], 1))
        w = self.tfc_w(torch.cat([w * torch.cos(phase_w), w * torch.sin(phase_w)], 1))
        a = self.reweight.weights(F.adaptive_avg_pool2d(h + w + c, 1), (batch, channels, 1, 1))
        return self.proj(h * a[0] + w * a[1] + c * a[2])


class Block(nn.Module):
    def __init__(self, dim: int, mixing: nn.Module, mixing_name: str, ratio: float, norm, linear):
        super().__init__()
        self.mixing_name = mixing_name
        self.norm1, self.norm2 = norm(dim), norm(dim)
        self.add_module(mixing_name, mixing)
        self.mlp = ChannelMLP(dim, int(dim * ratio), linear)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.get_submodule(self.mixing_name)(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Downsample(nn.Module):
    """Strided convolution. Hire-MLP adds a norm and ReLU, Wave-MLP and AS-MLP's stem a norm; CycleMLP returns NHWC."""

    def __init__(self, name: str, in_dim: int, dim: int, kernel: int, stride: int, padding: int, norm=None):
        super().__init__()
        self.proj = nn.Conv2d(in_dim, dim, kernel, stride, padding)
        self.family = name
        if norm is not None:
            self.norm = norm(dim)

    def forward(self, x: Tensor) -> Tensor:
        if self.family == 'CycleMLP':
            nchw = x if self.proj.stride[0] == 4 else x.permute(0, 3, 1, 2)  # the input of the stem is the image
            return self.proj(nchw).permute(0, 2, 3, 1)
        x = self.proj(x)
        x = self.norm(x) if hasattr(self, 'norm') else x
        return F.relu(x) if self.family == 'HireMLP' else x


class PatchMerging(nn.Module):
    def __init__(self, in_dim: int, dim: int):
        super().__init__()
        self.norm = nn.GroupNorm(1, 4 * in_dim)
        self.reduction = conv1x1(4 * in_dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        x = torch.cat([x[..., r::2, c::2] for c in (0, 1) for r in (0, 1)], 1)
        return self.reduction(self.norm(x))


class PublishedNetwork(nn.Module):
    """A family on images (B, 3, H, W), H and W multiples of 32; returns four feature maps (B, C, H / s, W / s).

    Args:
        family: ASMLP, CycleMLP, HireMLP or WaveMLP.
        arch: the complete dict of a variant, as in `backbone.arch`.
    """

    def __init__(self, family: str, arch: dict):
        super().__init__()
        self.family = family
        dims, group_norm = arch['dims'], partial(nn.GroupNorm, 1)
        norm, linear, mixing_name = {
            'ASMLP': (group_norm, conv1x1, 'axial_shift'),
            'CycleMLP': (nn.LayerNorm, nn.Linear, 'attn'),
            'HireMLP': (nn.BatchNorm2d, conv1x1, 'attn'),
            'WaveMLP': (group_norm if arch.get('group_norm') else nn.BatchNorm2d, conv1x1, 'attn'),
        }[family]
        kernel, padding = (4, 0) if family == 'ASMLP' else (7, 2)
        stem_norm = norm if family != 'CycleMLP' and arch.get('downsample_norm', True) else None
        self.patch_embed = Downsample(family if family != 'ASMLP' else '', 3, dims[0], kernel, 4, padding, stem_norm)
        stages, downsamples = [], []
        for i, (dim, depth) in enumerate(zip(dims, arch['depths'], strict=True)):
            blocks = nn.ModuleList()
            for j in range(depth):
                if family == 'ASMLP':
                    mixing = AxialShift(dim, arch['shift_size'])
                elif family == 'CycleMLP':
                    mixing = CycleMixing(dim)
                elif family == 'WaveMLP':
                    mixing = WaveMixing(dim, arch['depthwise_phase'])
                else:
                    step = j % arch['step_periods'][i] * arch['step_dilations'][i]
                    mixing = HireMixing(dim, arch['region_sizes'][i], step)
                blocks.append(Block(dim, mixing, mixing_name, arch['mlp_ratios'][i], norm, linear))
            stages.append(blocks)
            if i + 1 < len(dims):
                following = dims[i + 1]
                downsamples.append(
                    PatchMerging(dim, following)
                    if family == 'ASMLP'
                    else Downsample(family, dim, following, 3, 2, 1, stem_norm)
                )
        if family == 'ASMLP':
            self.layers = nn.ModuleList(nn.ModuleDict({'blocks': blocks}) for blocks in stages)
            for layer, downsample in zip(self.layers, downsamples, strict=False):
                layer['downsample'] = downsample
        else:
            pairs = zip(stages, [*downsamples, None], strict=True)
            self.network = nn.ModuleList([module for pair in pairs for module in pair][:-1])
        step = 1 if family == 'ASMLP' else 2
        for i, dim in enumerate(dims):
            self.add_module(f'norm{step * i}', norm(dim))
        self.forward_order = [(stages[i], getattr(self, f'norm{step * i}')) for i in range(len(dims))]
        self.downsamples = [self.patch_embed, *downsamples]

    def forward(self, x: Tensor) -> list[Tensor]:
        outs = []
        for downsample, (blocks, norm) in zip(self.downsamples, self.forward_order, strict=True):
            x = downsample(x)
            for block in blocks:
                x = block(x)
            out = norm(x)
            outs.append(out.permute(0, 3, 1, 2).contiguous() if self.family == 'CycleMLP' else out)
        return outs
