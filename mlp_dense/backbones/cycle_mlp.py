"""CycleMLP (Chen et al., arXiv 2107.10224)."""

from torch import Tensor, nn

from .. import kernels
from ..checkpoints.matching import LeftOut
from .base import NETWORK_NAMES, MLPBackbone
from .layers import ChannelLayerNorm, ConvDownsample, Pointwise, WeightedBranches, init_linear_layers

OFFSETS = (0, 1, -1)
"""Positions further along the axis at which channels 0, 1, 2, 3, ... are read, repeated (sec. 3.2)."""


class CycleTokenMixing(nn.Module):
    """Linear layers behind a shift along each axis, and one over the channels, weighted and projected.

    The official code computes a shift and its linear layer (CycleFC) as one deformable convolution.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.along_w = Pointwise(dim, dim)
        self.along_h = Pointwise(dim, dim)
        self.channel = Pointwise(dim, dim, bias=False)
        self.reweight = WeightedBranches(dim)
        self.proj = Pointwise(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        w, h = self.along_w(kernels.shift(x, OFFSETS, 2)), self.along_h(kernels.shift(x, OFFSETS, 1))
        return self.proj(self.reweight(w, h, self.channel(x)))


class CycleMLP(MLPBackbone):
    """CycleMLP (arXiv 2107.10224, table 1): archs b1 to b5."""

    archs = {
        'b1': dict(depths=(2, 2, 4, 2), dims=(64, 128, 320, 512)),
        'b2': dict(depths=(2, 3, 10, 3), dims=(64, 128, 320, 512)),
        'b3': dict(depths=(3, 4, 18, 3), dims=(64, 128, 320, 512), mlp_ratios=(8, 8, 4, 4)),
        'b4': dict(depths=(3, 8, 27, 3), dims=(64, 128, 320, 512), mlp_ratios=(8, 8, 4, 4)),
        'b5': dict(depths=(3, 4, 24, 3), dims=(96, 192, 384, 768)),
    }
    arch_defaults = dict(mlp_ratios=(4, 4, 4, 4))
    norms_allowed = {'LN': ChannelLayerNorm}
    official_names = (
        (r'\.attn\.sfc_[hw]\.offset$', LeftOut('CycleFC offsets')),  # constant: see OFFSETS
        # The official names mean the shape of the kernel: sfc_h (1, 3) shifts along the width.
        (r'\.attn\.sfc_h\.', '.token_mixing.along_w.'),
        (r'\.attn\.sfc_w\.', '.token_mixing.along_h.'),
        *NETWORK_NAMES,
    )

    def make_stem(self, in_channels: int, dim: int) -> nn.Module:
        return ConvDownsample(in_channels, dim, kernel_size=7, stride=4)

    def make_downsample(self, in_dim: int, dim: int, stage: int) -> nn.Module:
        return ConvDownsample(in_dim, dim, kernel_size=3, stride=2)

    def make_token_mixing(self, stage: int, index: int) -> nn.Module:
        return CycleTokenMixing(self.arch['dims'][stage])

    def init_family_weights(self) -> None:
        init_linear_layers(self, (nn.Linear,))  # the convolutions keep PyTorch's default
