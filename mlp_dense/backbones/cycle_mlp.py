"""CycleMLP (Chen et al., arXiv 2107.10224)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints.matching import LeftOut
from .cuda_paths import in_autocast_type
from .hierarchy import NETWORK_NAMES, HierarchicalMLP
from .layers import ChannelLayerNorm, ChannelShift, ConvDownsample, Pointwise, WeightedBranches, init_linear_layers


def cycle_shift(x: Tensor, axis: int) -> Tensor:
    """Channel i is read `offset` pixels further along an axis, zero outside: 0, +1, -1, 0, +1, -1, ... (sec. 3.2)."""
    size = x.shape[axis]
    padded = F.pad(x, (0, 0, 1, 1) if axis == 2 else (0, 0, 0, 0, 1, 1))
    after, before = padded.narrow(axis, 2, size), padded.narrow(axis, 0, size)
    offsets = (torch.arange(x.shape[3], device=x.device) + 1) % 3 - 1
    return torch.where(offsets == 0, x, torch.where(offsets == 1, after, before))


class CycleFC(Pointwise):
    """A linear layer behind a shift of every channel of (B, H, W, dim); officially a deformable convolution."""

    def __init__(self, dim: int, axis: int):
        super().__init__(dim, dim)
        self.shift = ChannelShift(dim, axis, cycle_shift, reach=1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.shift(x))


class CycleTokenMixing(nn.Module):
    """A CycleFC along each axis and a linear layer over the channels, weighted and projected."""

    def __init__(self, dim: int):
        super().__init__()
        self.along_w = CycleFC(dim, axis=2)
        self.along_h = CycleFC(dim, axis=1)
        self.channel = Pointwise(dim, dim, bias=False)
        self.reweight = WeightedBranches(dim)
        self.proj = Pointwise(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = in_autocast_type(x)
        return self.proj(self.reweight(self.along_w(x), self.along_h(x), self.channel(x)))


class CycleMLP(HierarchicalMLP):
    """CycleMLP (arXiv 2107.10224, table 1): archs b1 to b5. Arguments: see :class:`MLPBackbone`."""

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
        (r'\.attn\.sfc_[hw]\.offset$', LeftOut('CycleFC offsets')),  # constant: see CycleFC
        # The official names tell the shape of the kernel: sfc_h (1, 3) shifts along the width.
        (r'\.attn\.sfc_h\.', '.token_mixing.along_w.'),
        (r'\.attn\.sfc_w\.', '.token_mixing.along_h.'),
        *NETWORK_NAMES,
    )

    def make_stem(self, in_channels: int, dim: int) -> nn.Module:
        return ConvDownsample(in_channels, dim, kernel_size=7, stride=4, padding=2)

    def make_downsample(self, in_dim: int, dim: int, stage: int) -> nn.Module:
        return ConvDownsample(in_dim, dim, kernel_size=3, stride=2, padding=1)

    def make_token_mixing(self, stage: int, index: int) -> nn.Module:
        return CycleTokenMixing(self.arch['dims'][stage])

    def init_family_weights(self) -> None:
        init_linear_layers(self, (nn.Linear,))  # CycleFC is one; the convolutions keep PyTorch's default
