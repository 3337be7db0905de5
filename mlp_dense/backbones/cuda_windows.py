"""Faster ways to the same numbers on a GPU for networks on fixed grids, where :func:`cuda_paths.applies` says so.

Feature maps are (B, H, W, C), contiguous, where nothing else is said.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from .compat import round_up


def filled_up(x: Tensor, rows: int, columns: int) -> Tensor:
    """(B, H, W, C) with zeros at the right and the bottom, without first writing zeros everywhere."""
    return x if (rows, columns) == tuple(x.shape[1:3]) else _FilledUp.apply(x, rows, columns)


def cropped(x: Tensor, rows: int, columns: int) -> Tensor:
    """The way back, of which PyTorch's own gradient writes two maps of zeros."""
    return x if (rows, columns) == tuple(x.shape[1:3]) else _Cropped.apply(x, rows, columns)


class _FilledUp(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: int, columns: int) -> Tensor:
        batch, height, width, dim = x.shape
        ctx.size = height, width
        out = x.new_empty(batch, rows, columns, dim)
        out[:, :height, :width] = x
        out[:, :height, width:] = 0
        out[:, height:] = 0
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return cropped(gradient, *ctx.size), None, None


class _Cropped(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: int, columns: int) -> Tensor:
        ctx.size = x.shape[1:3]
        return x[:, :rows, :columns]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return filled_up(gradient, *ctx.size), None, None


def windows_apart(x: Tensor, size: int) -> Tensor:
    """(B, rows, columns, C), multiples of `size`, to (B * windows, size, size, C): a pass, but those that follow have
    fewer axes to count along, which costs a GPU more than memory does."""
    return x.unflatten(2, (-1, size)).unflatten(1, (-1, size)).transpose(2, 3).flatten(0, 2)


def windows_joined(x: Tensor, rows: int, columns: int) -> Tensor:
    """The way back."""
    size = x.shape[1]
    x = x.unflatten(0, (-1, rows // size, columns // size)).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)


def token_mlp(x: Tensor, size: int, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
    """An MLP with GELU over the positions of every window of (B, rows, columns, C), multiples of `size`. Positions stay
    in front of the channels, so that windows are moved, but not turned round."""
    tokens = _Tokens.apply(x, size)
    weight1 = F.pad(torch.cat([weight1, bias1[:, None]], 1), (0, len(tokens) - weight1.shape[1] - 1))
    tokens = torch.addmm(bias2[:, None], weight2, F.gelu(weight1 @ tokens))
    return _in_place(tokens, size, x.shape).reshape(x.shape)


def _in_place(tokens: Tensor, size: int, shape: Sequence[int]) -> Tensor:
    """(size**2, B * windows * C) as a view (B, row of windows, row in it, column of windows, column in it, C)."""
    batch, rows, columns, dim = shape
    tokens = tokens.view(size, size, batch, rows // size, columns // size, dim)
    return tokens.permute(2, 3, 0, 4, 1, 5)


class _Tokens(Function):
    """(B, rows, columns, C) to (K, B * windows * C): the positions of a window, a one for the bias, and zeros up to a
    multiple of 8, which fast products need."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int) -> Tensor:
        ctx.size, ctx.shape = size, x.shape
        positions = size**2
        out = x.new_empty(round_up(positions + 1, 8), x.numel() // positions)
        _in_place(out[:positions], size, x.shape).copy_(x.unflatten(2, (-1, size)).unflatten(1, (-1, size)))
        out[positions:] = 0
        out[positions] = 1
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _in_place(gradient.contiguous()[: ctx.size**2], ctx.size, ctx.shape).reshape(ctx.shape), None
