"""Layers that more than one family uses.

Inside the stages feature maps are (B, H, W, C), so that a linear layer over the channels is one matrix product. Norms
and convolutions take (B, C, H, W): :func:`in_nchw` calls them on the same memory.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from . import cuda_paths, fast_paths
from .compat import Conv, group_norm_input, pad_right_bottom
from .folding import fold_after, fold_before, is_foldable

MakeNorm = Callable[[int], nn.Module] | None  # from the number of channels
_has_any_global_hook = getattr(nn.modules.module, '_has_any_global_hook', lambda: True)


def in_nchw(module: nn.Module, x: Tensor) -> Tensor:
    """Applies a module that takes and gives (B, C, H, W) to (B, H, W, C); no copies."""
    return module(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def channels_last(x: Tensor) -> Tensor:
    # Inside of torch.func.vmap PyTorch cannot ask for it; results are the same in any memory.
    return x if fast_paths.is_transformed() else x.contiguous(memory_format=torch.channels_last)


class Pointwise(nn.Linear):
    """A linear layer over the channels of (B, H, W, C): ``nn.Linear``, on a CPU through oneDNN."""

    def forward(self, x: Tensor) -> Tensor:
        return fast_paths.linear(x, self.weight, self.bias)


def pointwise_gelu(layer: nn.Module, x: Tensor) -> Tensor:
    """``gelu(layer(x))``, in one pass where nobody asks for what the layer alone gives."""
    if is_unwrapped(layer) and fast_paths.applies_to_inference(x, layer.weight, layer.bias):
        return fast_paths.linear(x, layer.weight, layer.bias, 'gelu')
    return F.gelu(layer(x))


def is_unwrapped(*layers: nn.Module, kind: type = Pointwise) -> bool:
    """Whether each layer is nothing but its parameters: neither wrapped (by LoRA, say) nor hooked."""
    hooks = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks')
    return not _has_any_global_hook() and all(
        type(layer) is kind and not any(getattr(layer, name) for name in hooks) for layer in layers
    )


class ChannelMLP(nn.Module):
    """Channel mixing: two linear layers with GELU between, which training on a CPU keeps (`keep_gelu`), or computes
    again for its gradient."""

    def __init__(self, dim: int, hidden_dim: int, keep_gelu: bool = False):
        super().__init__()
        self.keep_gelu = keep_gelu
        self.fc1 = Pointwise(dim, hidden_dim)
        self.fc2 = Pointwise(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        if is_unwrapped(self.fc1, self.fc2):
            return fast_paths.mlp(x, *self.fc1.parameters(), *self.fc2.parameters(), self.keep_gelu)
        return self.fc2(pointwise_gelu(self.fc1, x))

    def fold_input_norm(self, norm: nn.Module) -> nn.Module:
        fold_before(norm, self.fc1)
        return nn.Identity()


class WeightedBranches(nn.Module):
    """Sums three branches, each weighted per channel by a softmax over the branches of scores from the mean of their
    unweighted sum (Hire-MLP, arXiv 2108.13341, sec. 3, and CycleMLP's published code)."""

    def __init__(self, dim: int):
        super().__init__()
        self.fc1 = Pointwise(dim, dim // 4)
        self.fc2 = Pointwise(dim // 4, 3 * dim)

    def forward(self, a: Tensor, b: Tensor, c: Tensor, axes: tuple[int, int] = (1, 2)) -> Tensor:
        """Branches (..., dim), the channels maybe in several axes; `axes`, in front of them, are those of the positions
        that share their weights."""
        # Not x.mean(), whose gradient is a whole feature map instead of one number for each channel.
        dtype = torch.float32 if a.dtype == torch.float16 else a.dtype  # fp16 would overflow
        total = sum(sum_of_positions(x, axes, dtype) for x in (a, b, c))
        mean = (total / (a.shape[axes[0]] * a.shape[axes[1]])).to(a.dtype).flatten(axes[1] + 1)
        scores = self.fc2(F.gelu(self.fc1(mean))).unflatten(-1, (-1, 3))  # branch k of channel c stands at 3c + k
        weights = scores.movedim(-1, 0).softmax(0).view(3, *total.shape)  # first, so that each is contiguous
        a_weight, b_weight, c_weight = weights
        if cuda_paths.applies(a) or (fast_paths.applies(a, *weights) and not torch.compiler.is_compiling()):
            return WeightedSum.apply(a, b, c, a_weight, b_weight, c_weight)
        return (a * a_weight).addcmul_(b, b_weight).addcmul_(c, c_weight)


def sum_of_positions(x: Tensor, axes: Sequence[int], dtype: torch.dtype) -> Tensor:
    """The sum over the axes of positions, which stay with size 1."""
    if x.is_cuda:  # which sums many numbers at once
        return x.sum(axes, True, dtype=dtype)
    # On a CPU PyTorch is ten times slower over axes that do not lie side by side than over one after the other.
    for axis in axes[::-1] if torch.compiler.is_compiling() else sorted(axes, key=x.stride):
        x = x.sum(axis, True, dtype=dtype)
    return x


class WeightedSum(Function):
    """Of three maps, in their type, with weights that fewer positions have, and that autocast gives in float32;
    PyTorch's own gradient of `addcmul` multiplies each map by one first."""

    @staticmethod
    def forward(ctx: Any, *maps_and_weights: Tensor) -> Tensor:
        ctx.save_for_backward(*maps_and_weights)
        a, b, c, *weights = maps_and_weights
        a_weight, b_weight, c_weight = (weight.to(a.dtype) for weight in weights)
        out = torch.mul(a, a_weight, out=a.new_empty(a.shape))  # contiguous, whatever the order of the maps
        return out.addcmul_(b, b_weight).addcmul_(c, c_weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        a, b, c, *weights = ctx.saved_tensors
        axes = [axis for axis, size in enumerate(weights[0].shape) if size != gradient.shape[axis]]
        dtype = torch.float32 if gradient.dtype in cuda_paths.HALF_TYPES else gradient.dtype  # fp16 would overflow
        of_maps, of_weights = [], []
        for x, weight in zip((a, b, c), weights, strict=True):
            own = gradient if gradient.stride() == x.stride() else torch.empty_like(x).copy_(gradient)
            of_maps.append(own * weight.to(gradient.dtype))
            of_weights.append(sum_of_positions(own * x, axes, dtype).to(weight.dtype))
        return *of_maps, *of_weights


class ChannelShift(nn.Module):
    """Moves every channel by its own number of pixels along an axis (1: height, 2: width), with zeros from outside:
    `shift`, a function of a feature map (B, H, W, dim) and the axis, by at most `reach` pixels."""

    def __init__(self, dim: int, axis: int, shift: Callable[[Tensor, int], Tensor], reach: int):
        super().__init__()
        self.axis, self.shift = axis, shift
        impulse = torch.zeros(1, 1, 2 * reach + 1, dim)
        impulse[:, :, reach] = 1
        kernel = shift(impulse, 2).flip(2).permute(3, 0, 1, 2).contiguous()  # a convolution reads the other way round
        self.register_buffer('kernel', kernel if axis == 2 else kernel.transpose(2, 3), persistent=False)
        self.register_buffer('offsets', kernel.flatten(1).argmax(1) - reach, persistent=False)
        self.reach = reach

    def forward(self, x: Tensor) -> Tensor:
        if cuda_paths.applies(x):
            return cuda_paths.Shift.apply(x, self.offsets, self.reach, self.axis)
        if not fast_paths.applies(x):
            return self.shift(x, self.axis)
        return fast_paths.DepthwiseShift.apply(x, self.kernel.to(x.dtype))


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, H, W), at every position."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GroupNorm1(nn.GroupNorm):
    """GroupNorm with one group: over all channels and positions of (B, C, H, W), so also over padding."""

    def __init__(self, dim: int, **kwargs):
        super().__init__(1, dim, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is not None and cuda_paths.applies(x, self.bias):
            return cuda_paths.group_norm(x, self.weight, self.bias, self.eps)
        if fast_paths.applies_to_inference(x, self.weight, self.bias):
            return fast_paths.group_norm(x.permute(0, 2, 3, 1), 1, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)
        return super().forward(group_norm_input(x))


class ConvDownsample(nn.Sequential):
    """A strided convolution of (B, C, H, W): a stem, or the step between two stages; a norm may follow, and
    then ReLU."""

    def __init__(
        self,
        in_dim: int,
        dim: int,
        kernel_size: int,
        stride: int,
        padding: int,
        norm: MakeNorm = None,
        relu: bool = False,
    ):
        super().__init__()
        self.conv = Conv(in_dim, dim, kernel_size, stride, padding)
        if norm is not None:
            self.norm = norm(dim)
        if relu:
            self.activation = nn.ReLU()
        self.smallest = kernel_size - 2 * padding  # a smaller image has no output pixel

    def forward(self, x: Tensor) -> Tensor:
        if any(size < self.smallest for size in x.shape[-2:]):
            x = pad_right_bottom(x, *(max(size, self.smallest) for size in x.shape[-2:]))
        return super().forward(channels_last(x))

    def fold_norms(self) -> None:
        if is_foldable(getattr(self, 'norm', None)):
            fold_after(self.conv, self.norm)
            self.norm = nn.Identity()


def init_linear_layers(module: nn.Module, kinds: tuple[type, ...]) -> None:
    """Truncated normal weights (std 0.02) and zero biases for every layer of the given kinds."""
    for layer in module.modules():
        if isinstance(layer, kinds):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
