"""AS-MLP (Lian et al., arXiv 2107.08391)."""

import torch.nn.functional as F
from torch import Tensor, nn

from .. import kernels
from ..checkpoints.matching import LeftOut
from ..kernels.compat import pad_right_bottom, round_up
from .base import MLPBackbone
from .layers import GroupNorm1, MakeNorm, PatchStem, Pointwise, in_nchw


class AxialShift(nn.Module):
    """Token mixing of (B, H, W, dim): a shift along each axis, each followed by a linear layer, their sum projected.

    A shift divides the channels into `shift_size` groups, those of ``torch.chunk``, and moves them by
    -(shift_size // 2) to shift_size // 2 pixels, with zeros outside (sec. 3.2).
    """

    def __init__(self, dim: int, shift_size: int, norm: MakeNorm):
        super().__init__()
        self.offsets = range(shift_size // 2, -(shift_size // 2) - 1, -1)  # where a group is read
        self.group = -(-dim // shift_size)
        self.expand = Pointwise(dim, dim)
        self.norm1 = norm(dim)
        self.along_w = Pointwise(dim, dim)
        self.along_h = Pointwise(dim, dim)
        self.norm2 = norm(dim)
        self.proj = Pointwise(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(in_nchw(self.norm1, self.expand(x)))
        w, h = (kernels.shift(x, self.offsets, axis, self.group) for axis in (2, 1))
        x = F.gelu(self.along_w(w)) + F.gelu(self.along_h(h))
        return self.proj(in_nchw(self.norm2, x))


class PatchMerging(nn.Module):
    """Four neighbours (those at [0,0], [1,0], [0,1], [1,1], row first) stacked as channels, norm, and a linear layer.

    This is the order of the first Swin code; the order in mmdet and mmseg differs.
    """

    def __init__(self, in_dim: int, dim: int, norm: MakeNorm):
        super().__init__()
        self.norm = norm(4 * in_dim)
        self.reduction = Pointwise(4 * in_dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = pad_right_bottom(x, *(round_up(size, 2) for size in x.shape[-2:]))
        x = x.permute(0, 2, 3, 1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (B, H / 2, row, W / 2, column, C)
        x = in_nchw(self.norm, x.permute(0, 1, 3, 4, 2, 5).flatten(3))
        return self.reduction(x).permute(0, 3, 1, 2)


class ASMLP(MLPBackbone):
    """AS-MLP (arXiv 2107.08391, table 1): archs tiny, small and base."""

    archs = {
        'tiny': dict(depths=(2, 2, 6, 2), dims=(96, 192, 384, 768)),
        'small': dict(depths=(2, 2, 18, 2), dims=(96, 192, 384, 768)),
        'base': dict(depths=(2, 2, 18, 2), dims=(128, 256, 512, 1024)),
    }
    arch_defaults = dict(mlp_ratios=(4, 4, 4, 4), shift_size=5)
    norms_allowed = {'GN1': GroupNorm1}
    official_names = (
        (r'^(norm|head)\.', LeftOut('classifier head and norm')),
        (r'^patch_embed\.proj\.', 'stem.conv.'),
        (r'^patch_embed\.norm\.', 'stem.norm.'),
        (r'^layers\.(\d+)\.downsample\.', lambda m: f'stages.{int(m[1]) + 1}.downsample.'),
        (r'^layers\.', 'stages.'),
        (r'^norm(\d)\.', r'norms.\1.'),
        (r'\.axial_shift\.conv1\.', '.token_mixing.expand.'),
        (r'\.axial_shift\.conv2_1\.', '.token_mixing.along_w.'),
        (r'\.axial_shift\.conv2_2\.', '.token_mixing.along_h.'),
        (r'\.axial_shift\.conv3\.', '.token_mixing.proj.'),
        (r'\.axial_shift\.', '.token_mixing.'),
        (r'\.mlp\.(?=fc)', '.channel_mixing.'),
    )

    # Initial weights: PyTorch's defaults. The official init function changes only layer types that do not occur.

    def make_stem(self, in_channels: int, dim: int) -> nn.Module:
        return PatchStem(in_channels, dim, patch_size=4, multiple=4, norm=self.make_norm)

    def make_downsample(self, in_dim: int, dim: int, stage: int) -> nn.Module:
        return PatchMerging(in_dim, dim, self.make_norm)

    def make_token_mixing(self, stage: int, index: int) -> nn.Module:
        return AxialShift(self.arch['dims'][stage], self.arch['shift_size'], self.make_norm)
