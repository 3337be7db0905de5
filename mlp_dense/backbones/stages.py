"""A stage of a backbone: a downsampling, then blocks at one resolution."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..kernels.compat import channels_last, recompute
from .fusion import is_foldable
from .layers import MakeNorm, in_nchw


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): in training, an image skips the residual branch with probability `rate`."""

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


class Block(nn.Module):
    """Token mixing, then channel mixing, of (B, H, W, dim), each after a norm and inside a residual connection."""

    def __init__(self, dim: int, token_mixing: nn.Module, channel_mixing: nn.Module, norm: MakeNorm, drop_path: float):
        super().__init__()
        self.norm1 = norm(dim)
        self.token_mixing = token_mixing
        self.norm2 = norm(dim)
        self.channel_mixing = channel_mixing
        self.drop_path: nn.Module = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.token_mixing(in_nchw(self.norm1, x)))
        return x + self.drop_path(self.channel_mixing(in_nchw(self.norm2, x)))

    def fold_norms(self) -> None:
        """Fold both norms by a mixing's `fold_input_norm(norm)`, which returns what remains to be applied."""
        self.drop_path = nn.Identity()
        for norm, mixing in (('norm1', self.token_mixing), ('norm2', self.channel_mixing)):
            if is_foldable(getattr(self, norm)) and hasattr(mixing, 'fold_input_norm'):
                setattr(self, norm, mixing.fold_input_norm(getattr(self, norm)))


class Stage(nn.Module):
    """A downsampling of (B, C, H, W) (the identity in the first stage), then blocks, which take (B, H, W, C)."""

    def __init__(self, downsample: nn.Module, blocks: Sequence[nn.Module], with_cp: bool):
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        x = channels_last(self.downsample(x)).permute(0, 2, 3, 1)
        for block in self.blocks:
            if self.with_cp and torch.is_grad_enabled():
                x = recompute(block, x, partial(_running_statistics_kept, block))
            else:
                x = block(x)
        return x.permute(0, 3, 1, 2)


@contextmanager
def _running_statistics_kept(block: nn.Module) -> Iterator[None]:
    """Keep the second forward pass of activation checkpointing from updating running statistics a second time."""
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
