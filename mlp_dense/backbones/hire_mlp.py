"""Hire-MLP (Guo et al., arXiv 2108.13341)."""

from torch import Tensor, nn

from ..kernels import cyclic_window, linear
from ..kernels.compat import round_up
from .base import NETWORK_NAMES, MLPBackbone
from .fusion import fold_after, fold_before
from .layers import ConvDownsample, MakeNorm, Pointwise, WeightedBranches, in_nchw, init_linear_layers


class RegionMLP(nn.Module):
    """Mixing of the positions inside regions of `region_size` rows along one axis of (B, H, W, dim) (sec. 3.2, 3.3).

    Cross-region rearrangement: the feature map is first rolled by `step` along the axis, and rolled back at the end.
    Inner-region rearrangement: the rows of a region become channels (index c * region_size + row) for a bottleneck MLP.
    The last region is padded cyclically.
    """

    def __init__(self, dim: int, region_size: int, step: int, axis: int, norm: MakeNorm):
        super().__init__()
        self.region_size, self.step, self.axis = region_size, step, axis
        self.fc1 = Pointwise(dim * region_size, dim // 2, bias=False)
        self.norm = norm(dim // 2)
        self.fc2 = Pointwise(dim // 2, dim * region_size)

    def forward(self, x: Tensor) -> Tensor:
        axis, size, region = self.axis, x.shape[self.axis], self.region_size
        # Rolled, then padded: row q is row (q - step) mod size of x.
        x = cyclic_window(x, size, -self.step, round_up(size, region), axis)
        # The channels of a row stay together, which needs no copy along the width; the weights are reordered instead.
        x = x.unflatten(axis, (-1, region)).movedim(axis + 1, 3).flatten(3)
        weight = self.fc1.weight.unflatten(1, (-1, region)).transpose(1, 2).flatten(1)
        x = in_nchw(self.norm, linear(x, weight, self.fc1.bias)).relu()
        parameters = (self.fc2.weight, self.fc2.bias)
        x = linear(x, *(tensor.unflatten(0, (-1, region)).transpose(0, 1).flatten(0, 1) for tensor in parameters))
        x = x.unflatten(3, (region, -1)).movedim(3, axis + 1).flatten(axis, axis + 1)
        return cyclic_window(x, size, self.step, size, axis)

    def fold_norms(self) -> None:
        self.norm = fold_after(self.fc1, self.norm)


class HireTokenMixing(nn.Module):
    """Region mixing along each axis and a linear layer over the channels, weighted and projected (sec. 3.1)."""

    def __init__(self, dim: int, region_size: int, step: int, norm: MakeNorm):
        super().__init__()
        self.along_h = RegionMLP(dim, region_size, step, 1, norm)
        self.along_w = RegionMLP(dim, region_size, step, 2, norm)
        self.channel = Pointwise(dim, dim)
        self.reweight = WeightedBranches(dim)
        self.proj = Pointwise(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.reweight(self.along_h(x), self.along_w(x), self.channel(x)))

    def fold_input_norm(self, norm: nn.Module) -> nn.Module:
        return fold_before(norm, self.channel, self.along_h.fc1, self.along_w.fc1)


class HireMLP(MLPBackbone):
    """Hire-MLP (arXiv 2108.13341, table 1): archs tiny, small, base and large.

    In training BatchNorm needs more than one value per channel, so a batch of one image needs at least 33 pixels a
    side.
    """

    archs = {
        'tiny': dict(depths=(2, 2, 4, 2), dims=(64, 128, 320, 512)),
        'small': dict(depths=(3, 4, 10, 3), dims=(64, 128, 320, 512)),
        'base': dict(depths=(4, 6, 24, 3), dims=(64, 128, 320, 512)),
        'large': dict(depths=(4, 6, 24, 3), dims=(96, 192, 384, 768)),
    }
    # Block j of a stage steps by (j mod step_period) * step_dilation.
    arch_defaults = dict(
        mlp_ratios=(4, 4, 4, 4), region_sizes=(4, 3, 3, 2), step_periods=(2, 2, 3, 2), step_dilations=(2, 2, 1, 1)
    )
    norms_allowed = {'BN': nn.BatchNorm2d, 'SyncBN': nn.SyncBatchNorm}
    official_names = (
        (r'\.attn\.mlp_([hw])1_norm\.', r'.token_mixing.along_\1.norm.'),
        (r'\.attn\.mlp_([hw])([12])\.', r'.token_mixing.along_\1.fc\2.'),
        *NETWORK_NAMES,
    )

    def make_stem(self, in_channels: int, dim: int) -> nn.Module:
        return ConvDownsample(in_channels, dim, 7, stride=4, norm=self.make_norm, relu=True)

    def make_downsample(self, in_dim: int, dim: int, stage: int) -> nn.Module:
        return ConvDownsample(in_dim, dim, 3, stride=2, norm=self.make_norm, relu=True)

    def make_token_mixing(self, stage: int, index: int) -> nn.Module:
        dim, region_size, period, dilation = (
            self.arch[key][stage] for key in ('dims', 'region_sizes', 'step_periods', 'step_dilations')
        )
        return HireTokenMixing(dim, region_size, index % period * dilation, self.make_norm)

    def init_family_weights(self) -> None:
        init_linear_layers(self, (nn.Linear, nn.Conv2d))
