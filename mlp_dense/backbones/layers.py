"""Layers that more than one family uses. Maps are (B, C, H, W); their memory is channels_last inside the stages."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from . import fast_paths
from .folding import fold_after, fold_before, is_foldable


class Pointwise(nn.Linear):
    """The same linear map over the channels at every position: a 1x1 convolution, as one matrix product."""

    def forward(self, x: Tensor, activation: str = 'none') -> Tensor:
        """Maps (B, C, H, W) to (B, out_features, H, W); `activation` (none, gelu or relu) follows."""
        return pointwise(x, self.weight, self.bias, activation)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = 'none') -> Tensor:
    """A linear map over the channels of (B, C, H, W), and an activation (none, gelu or relu)."""
    if fast_paths.infers(x, weight, bias):
        return fast_paths.linear(x, weight, bias, activation)
    if fast_paths.trains(x, weight, bias):
        x = fast_paths.conv1x1(x, weight, bias)
    else:
        x = F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)  # no copies in channels_last memory
    return {'none': nn.Identity(), 'gelu': gelu, 'relu': F.relu}[activation](x)


class ChannelShift(nn.Module):
    """Moves every channel by its own number of pixels along one axis: out[p] = in[p - shift], zero outside.

    Args:
        shifts: whole numbers, one for each channel.
        axis: 2 for the height, 3 for the width.
        plain: the same as a function of (map, axis), in plain operators.
    """

    def __init__(self, shifts: Sequence[int], axis: int, plain: Callable[[Tensor, int], Tensor]):
        super().__init__()
        self.axis, self.plain = axis, plain
        reach = max(map(abs, shifts))
        kernel = (torch.tensor(shifts)[:, None] == torch.arange(reach, -reach - 1, -1)).float()
        self.register_buffer('kernel', kernel[:, None, None] if axis == 3 else kernel[:, None, :, None], False)

    def forward(self, x: Tensor) -> Tensor:
        if not fast_paths.takes(x):
            return self.plain(x, self.axis)
        return fast_paths.DepthwiseShift.apply(x, self.kernel.to(x.dtype))


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map, at every position."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def gelu(x: Tensor) -> Tensor:
    """GELU of a map that nobody else uses: in its place where no gradient needs it, since new memory costs as much."""
    x = x.permute(0, 2, 3, 1)  # PyTorch's kernel is 2.5 times slower on other than contiguous memory
    x = F.gelu(x) if torch.is_grad_enabled() and x.requires_grad else torch.ops.aten.gelu_(x)
    return x.permute(0, 3, 1, 2)


def add(fresh: Tensor, x: Tensor) -> Tensor:
    """The sum of two maps, in place of the first where no gradient needs it: nobody else may use that."""
    trained = torch.is_grad_enabled() and fresh.requires_grad
    return fresh + x if trained or fresh.dtype != x.dtype else fresh.add_(x)


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): in training, a picture skips the residual branch with probability `rate`."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        return x * x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(keep).div_(keep)

    def extra_repr(self) -> str:
        return f'rate={self.rate:.3g}'


def round_up(size: int, divisor: int) -> int:
    """The next multiple; written so that compilers can reduce it."""
    return (size + divisor - 1) // divisor * divisor


class Conv(nn.Conv2d):
    """A convolution that compiles for all sizes: PyTorch 2.13 fails on the formula of its output size with padding."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            return super().forward(x)
        (kernel, _), (stride, _), (padding, _) = self.kernel_size, self.stride, self.padding
        bottom, right = (
            round_up(size + 2 * padding - kernel + 1, stride) - stride + kernel - padding - size
            for size in x.shape[-2:]
        )
        x = F.pad(x, (padding, right, padding, bottom))
        return F.conv2d(channels_last(x), self.weight, self.bias, stride)


class ConvDownsample(nn.Sequential):
    """A strided convolution (a stem, or the step between two stages); with a norm, that and ReLU follow."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        padding: int,
        norm: Callable[[int], nn.Module] | None = None,
    ):
        super().__init__()
        self.conv = Conv(in_channels, out_channels, kernel_size, stride, padding)
        if norm is not None:
            self.norm = norm(out_channels)
            self.activation = nn.ReLU()
        self.smallest = kernel_size - 2 * padding  # a picture smaller than this has no output pixel

    def forward(self, x: Tensor) -> Tensor:
        if any(size < self.smallest for size in x.shape[-2:]):
            x = pad_right_bottom(x, *(max(size, self.smallest) for size in x.shape[-2:]))
        return super().forward(channels_last(x))

    def fold_norms(self) -> None:
        if is_foldable(getattr(self, 'norm', None)):
            fold_after(self.conv, self.norm)
            self.norm = nn.Identity()


def pad_right_bottom(x: Tensor, height: int, width: int) -> Tensor:
    """Zero-pads (B, C, H, W) at the right and the bottom to the given size."""
    if not torch.compiler.is_compiling() and (height, width) == tuple(x.shape[-2:]):
        return x  # compiled code must not depend on it, to hold for all sizes
    return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))


class ChannelMLP(nn.Module):
    """Channel mixing: two pointwise maps with GELU between."""

    def __init__(self, dim: int, hidden_dim: int, out_dim: int | None = None):
        super().__init__()
        self.fc1 = Pointwise(dim, hidden_dim)
        self.fc2 = Pointwise(hidden_dim, out_dim or dim)

    def forward(self, x: Tensor) -> Tensor:
        weights = (*self.fc1.parameters(), *self.fc2.parameters())
        # Compilers decide for themselves what to compute again.
        if not torch.compiler.is_compiling() and _are_plain(self.fc1, self.fc2) and fast_paths.trains(x, *weights):
            return fast_paths.TrainedMLP.apply(x, *weights)
        return self.fc2(self.fc1(x, 'gelu'))

    def fold_input_norm(self, norm: nn.Module) -> None:
        fold_before(norm, self.fc1)


def _are_plain(*layers: nn.Module) -> bool:
    """Whether a layer is nothing but its parameters: neither wrapped (by LoRA, say) nor hooked."""
    hooks = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks')
    return all(type(layer) is Pointwise and not any(getattr(layer, name) for name in hooks) for layer in layers)


class WeightedBranches(ChannelMLP):
    """Sums three branches, each weighted per channel by a softmax over the branches.

    The weights come from the mean over all positions of the plain sum (Hire-MLP, arXiv 2108.13341, sec. 3;
    CycleMLP's published code does the same).
    """

    def __init__(self, dim: int):
        super().__init__(dim, dim // 4, 3 * dim)

    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        # Not x.mean(), whose gradient is a whole map instead of one number for each channel.
        dtype = torch.float32 if a.dtype == torch.float16 else a.dtype  # fp16 would overflow
        total = sum(x.sum((2, 3), keepdim=True, dtype=dtype) for x in (a, b, c))
        a_weight, b_weight, c_weight = self.weights((total / (a.shape[2] * a.shape[3])).to(a.dtype))
        return (a * a_weight).addcmul_(b, b_weight).addcmul_(c, c_weight)

    def weights(self, mean: Tensor) -> tuple[Tensor, ...]:
        """The mean of the sum, (B, C, 1, 1), to a weight of the same shape for each branch."""
        scores = super().forward(mean).unflatten(1, (-1, 3)).movedim(2, 0)  # branch k of channel c stands at 3c + k
        softmax = fast_paths.softmax if fast_paths.infers(scores) else torch.softmax
        return softmax(scores, 0).unbind()


class Block(nn.Module):
    """Token mixing, then channel mixing, each after a norm and inside a residual connection."""

    def __init__(
        self, dim: int, token_mixing: nn.Module, mlp_ratio: float, norm: Callable[[int], nn.Module], drop_path: float
    ):
        super().__init__()
        self.norm1 = norm(dim)
        self.token_mixing = token_mixing
        self.norm2 = norm(dim)
        self.channel_mixing = ChannelMLP(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = add(self.drop_path(self.token_mixing(self.norm1(x))), x)
        return add(self.drop_path(self.channel_mixing(self.norm2(x))), x)

    def fold_norms(self) -> None:
        """Folds what can be; a token mixing that BatchNorm stands before has the method `fold_input_norm`."""
        if is_foldable(self.norm1):
            self.token_mixing.fold_input_norm(self.norm1)
            self.norm1 = nn.Identity()
        if is_foldable(self.norm2):
            self.channel_mixing.fold_input_norm(self.norm2)
            self.norm2 = nn.Identity()


class Stage(nn.Module):
    """A downsampling (the identity in the first stage), then blocks, at one resolution."""

    def __init__(self, downsample: nn.Module, blocks: Sequence[nn.Module], with_cp: bool):
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        x = channels_last(self.downsample(x))  # the pointwise maps are then plain matrix products
        for block in self.blocks:
            if self.with_cp and torch.is_grad_enabled():
                # A compiler traces the recomputation itself, and takes no contexts.
                contexts = dict(context_fn=partial(_recomputation_contexts, block))
                x = checkpoint(block, x, use_reentrant=False, **({} if torch.compiler.is_compiling() else contexts))
            else:
                x = block(x)
        return x


def _recomputation_contexts(block: nn.Module):
    return nullcontext(), _running_statistics_kept(block)


@contextmanager
def _running_statistics_kept(block: nn.Module) -> Iterator[None]:
    """The second forward pass of activation checkpointing must not update running statistics a second time."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, num_batches_tracked) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(num_batches_tracked)


def init_linear_maps(module: nn.Module, kinds: tuple[type, ...]) -> None:
    """Truncated normal weights (std 0.02) and zero biases for every layer of the given kinds."""
    for layer in module.modules():
        if isinstance(layer, kinds):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
