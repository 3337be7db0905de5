"""Wave-MLP (Tang et al., arXiv 2111.12294)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .. import kernels
from .base import NETWORK_NAMES, MLPBackbone
from .fusion import fold_after, fold_before
from .layers import ConvDownsample, GroupNorm1, MakeNorm, Pointwise, WeightedBranches, in_nchw


class GroupedConv(nn.Conv2d):
    """Convolution of (B, H, W, in_dim) in which output channel i reads the n = in_dim / dim channels from i * n on."""

    def __init__(self, in_dim: int, dim: int, kernel_size: tuple[int, int]):
        super().__init__(in_dim, dim, kernel_size, padding='same', groups=dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return kernels.grouped_conv(x, self.weight, self.bias)


class WaveAlong(nn.Module):
    """Mixing of neighbours along one axis of (B, H, W, dim) (sec. 3.2).

    Each channel of a token is a wave with an amplitude and a phase, which depends on the image. A weighted sum of
    `window` tokens adds their real and imaginary parts.
    """

    window = 7

    def __init__(self, dim: int, axis: int, depthwise_phase: bool, batch_norm: MakeNorm):
        super().__init__()
        self.amplitude = Pointwise(dim, dim, bias=False)
        self.phase = GroupedConv(dim, dim, (3, 3)) if depthwise_phase else Pointwise(dim, dim)
        self.norm = batch_norm(dim)
        # It reads pairs of channels of the concatenated parts: two real ones or two imaginary ones, as published.
        self.mix = GroupedConv(2 * dim, dim, (1, self.window) if axis == 2 else (self.window, 1))

    def forward(self, x: Tensor) -> Tensor:
        phase, amplitude = in_nchw(self.norm, self.phase(x)).relu(), self.amplitude(x)
        return self.mix(torch.cat([amplitude * phase.cos(), amplitude * phase.sin()], -1))

    def fold_norms(self) -> None:
        self.norm = fold_after(self.phase, self.norm)


class WaveTokenMixing(nn.Module):
    """Waves along each axis and a linear layer over the channels, weighted and projected (sec. 3.3)."""

    def __init__(self, dim: int, depthwise_phase: bool, batch_norm: MakeNorm):
        super().__init__()
        self.along_w, self.along_h = (WaveAlong(dim, axis, depthwise_phase, batch_norm) for axis in (2, 1))
        self.channel = Pointwise(dim, dim, bias=False)
        self.reweight = WeightedBranches(dim)
        self.proj = Pointwise(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.reweight(self.along_w(x), self.along_h(x), self.channel(x)))

    def fold_input_norm(self, norm: nn.Module) -> nn.Module:
        w, h = self.along_w, self.along_h
        if isinstance(w.phase, GroupedConv) or isinstance(h.phase, GroupedConv):
            return norm  # a convolution pads with zeros after the norm, which folding cannot reproduce
        return fold_before(norm, self.channel, w.amplitude, w.phase, h.amplitude, h.phase)


class WaveMLP(MLPBackbone):
    """Wave-MLP (arXiv 2111.12294, table 1): archs t_dw, t, s, m and b.

    The norms of s, m and b are GroupNorm of one group, except those of the phases. All other norms are the BatchNorm
    that `norm_cfg` selects. In training BatchNorm needs more than one value per channel, so a batch of one image needs
    at least 33 pixels a side.
    """

    archs = {
        't_dw': dict(depths=(2, 2, 4, 2), dims=(64, 128, 320, 512), depthwise_phase=True),
        't': dict(depths=(2, 2, 4, 2), dims=(64, 128, 320, 512)),
        's': dict(depths=(2, 3, 10, 3), dims=(64, 128, 320, 512), group_norm=True),
        'm': dict(
            depths=(3, 4, 18, 3),
            dims=(64, 128, 320, 512),
            mlp_ratios=(8, 8, 4, 4),
            group_norm=True,
            downsample_norm=False,
        ),
        'b': dict(depths=(2, 2, 18, 2), dims=(96, 192, 384, 768), group_norm=True, downsample_norm=False),
    }
    # downsample_norm: whether a norm follows the stem and each downsampling.
    arch_defaults = dict(mlp_ratios=(4, 4, 4, 4), group_norm=False, downsample_norm=True, depthwise_phase=False)
    norms_allowed = {'BN': nn.BatchNorm2d, 'SyncBN': nn.SyncBatchNorm}
    official_names = (
        # The official names describe the shape of the kernel: tfc_h (1, 7) mixes along the width.
        (r'\.attn\.fc_h\.', '.token_mixing.along_w.amplitude.'),
        (r'\.attn\.fc_w\.', '.token_mixing.along_h.amplitude.'),
        (r'\.attn\.fc_c\.', '.token_mixing.channel.'),
        (r'\.attn\.tfc_h\.', '.token_mixing.along_w.mix.'),
        (r'\.attn\.tfc_w\.', '.token_mixing.along_h.mix.'),
        (r'\.attn\.theta_h_conv\.', '.token_mixing.along_w.'),
        (r'\.attn\.theta_w_conv\.', '.token_mixing.along_h.'),
        (r'\.(along_[hw])\.0\.', r'.\1.phase.'),
        (r'\.(along_[hw])\.1\.', r'.\1.norm.'),
        *NETWORK_NAMES,
    )

    # Initial weights: PyTorch's defaults. The official init function changes only nn.Linear, which does not occur.

    def make_norm(self, dim: int) -> nn.Module:
        if not self.arch['group_norm']:
            return super().make_norm(dim)
        return GroupNorm1(dim).requires_grad_(self.norm_cfg.get('requires_grad', True))

    def make_stem(self, in_channels: int, dim: int) -> nn.Module:
        norm = self.make_norm if self.arch['downsample_norm'] else None
        return ConvDownsample(in_channels, dim, 7, stride=4, norm=norm)

    def make_downsample(self, in_dim: int, dim: int, stage: int) -> nn.Module:
        norm = self.make_norm if self.arch['downsample_norm'] else None
        return ConvDownsample(in_dim, dim, 3, stride=2, norm=norm)

    def make_token_mixing(self, stage: int, index: int) -> nn.Module:
        return WaveTokenMixing(self.arch['dims'][stage], self.arch['depthwise_phase'], super().make_norm)

    @classmethod
    def _infer_arch(cls, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        return super()._infer_arch(weights) | dict(
            group_norm='stages.0.blocks.0.norm1.running_mean' not in weights,
            downsample_norm='stem.norm.weight' in weights,
            depthwise_phase=weights['stages.0.blocks.0.token_mixing.along_w.phase.weight'].shape[2:] == (3, 3),
        )
