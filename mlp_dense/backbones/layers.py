"""Layers that more than one family uses. Maps are (B, C, H, W); their memory is channels_last inside the stages."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class Pointwise(nn.Linear):
    """The same linear map over the channels at every position: a 1x1 convolution, as one matrix product.

    On channels_last memory both permutes are free.
    """

    def forward(self, x: Tensor, activation: str = 'none') -> Tensor:
        """Maps (B, C, H, W) to (B, out_features, H, W); `activation` (none, gelu or relu) follows."""
        return pointwise(x.permute(0, 2, 3, 1), self.weight, self.bias, activation).permute(0, 3, 1, 2)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = 'none') -> Tensor:
    """A linear map over the last axis, and an activation (none, gelu or relu)."""
    trained = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias))
    if onednn_takes(x) and not trained and x.dtype == weight.dtype and not torch.is_autocast_enabled('cpu'):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], 'none')
    x = F.linear(x, weight, bias)
    return x if activation == 'none' else getattr(F, activation)(x)


def onednn_takes(x: Tensor) -> bool:
    """Whether oneDNN's CPU kernels, faster than the plain operators, take a tensor; they give the same numbers.

    Compilers, exporters and counters of operations trace a model, and must see the plain operators.
    """
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and x.device.type == 'cpu'
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and (x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()))
    )


class ChannelShift(nn.Module):
    """Moves every channel by its own number of pixels along one axis: out[p] = in[p - shift], zero outside.

    Args:
        shifts: whole numbers, one for each channel.
        axis: 2 for the height, 3 for the width.
        plain: the same as a function of (map, axis), in plain operators.
    """

    def __init__(self, shifts: Sequence[int], axis: int, plain: Callable[[Tensor, int], Tensor]):
        super().__init__()
        self.axis, self.plain, self.reach = axis, plain, max(map(abs, shifts))
        kernel = (torch.tensor(shifts)[:, None] == torch.arange(self.reach, -self.reach - 1, -1)).float()
        self.register_buffer('kernel', kernel[:, None, None] if axis == 3 else kernel[:, None, :, None], False)

    def forward(self, x: Tensor) -> Tensor:
        if not onednn_takes(x):
            return self.plain(x, self.axis)
        # A depthwise convolution with a single one in every kernel: one pass over the memory.
        padding = (0, self.reach) if self.axis == 3 else (self.reach, 0)
        return F.conv2d(x, self.kernel.to(x.dtype), padding=padding, groups=len(self.kernel))


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
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding)
        if norm is not None:
            self.norm = norm(out_channels)
            self.activation = nn.ReLU()
        self.smallest = kernel_size - 2 * padding  # a picture smaller than this has no output pixel

    def forward(self, x: Tensor) -> Tensor:
        x = pad_right_bottom(x, *(max(size, self.smallest) for size in x.shape[-2:]))
        return super().forward(channels_last(x))


def pad_right_bottom(x: Tensor, height: int, width: int) -> Tensor:
    """Zero-pads (B, C, H, W) at the right and the bottom to the given size."""
    if (height, width) == tuple(x.shape[-2:]):
        return x
    return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))


class ChannelMLP(nn.Module):
    """Channel mixing: two pointwise maps with GELU between."""

    def __init__(self, dim: int, hidden_dim: int, out_dim: int | None = None):
        super().__init__()
        self.fc1 = Pointwise(dim, hidden_dim)
        self.fc2 = Pointwise(hidden_dim, out_dim or dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x, 'gelu'))


class WeightedBranches(ChannelMLP):
    """Sums three branches, each weighted per channel by a softmax over the branches.

    The weights come from the mean over all positions of the plain sum (Hire-MLP, arXiv 2108.13341, sec. 3;
    CycleMLP's published code does the same).
    """

    def __init__(self, dim: int):
        super().__init__(dim, dim // 4, 3 * dim)

    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        a_weight, b_weight, c_weight = self.weights(sum(x.mean((2, 3), keepdim=True) for x in (a, b, c)))
        return (a * a_weight).addcmul_(b, b_weight).addcmul_(c, c_weight)

    def weights(self, mean: Tensor) -> tuple[Tensor, ...]:
        """The mean of the sum, (B, C, 1, 1), to a weight of the same shape for each branch."""
        scores = super().forward(mean)
        return scores.unflatten(1, (-1, 3)).softmax(2).unbind(2)  # branch k of channel c stands at 3c + k


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
