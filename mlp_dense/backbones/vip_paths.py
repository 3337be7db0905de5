"""Vision Permutator's linear layers along an axis on a CPU, see `fast_paths.py`: what changes places is not copied."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from . import fast_paths


class AlongAxis(Function):
    """The linear layer `weight` over the positions along an axis of the windows and the last channels at once, of
    (B, rows, grid, columns, grid, segments, depth), contiguous, to the same shape in memory of another order; the axis
    is 2 or 4."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, axis: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.axis = axis
        # As a convolution over the axis, which reads its channels where they are.
        maps = x.flatten(0, axis - 1).flatten(2, -2).permute(0, 3, 1, 2)  # (.., depth, grid, rest)
        kernel = weight.unflatten(1, (x.shape[axis], -1)).transpose(1, 2).unsqueeze(3)
        out = F.conv2d(maps, kernel).permute(0, 2, 3, 1)
        return _restored(out, x.shape, axis)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), axis = ctx.saved_tensors, ctx.axis
        needed = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():
            return *fast_paths.with_graph(lambda *inputs: _plain(*inputs, axis), (x, weight), needed, gradient), None
        maps = (_rows(each, axis).flatten(1, -2).unsqueeze(1) for each in (gradient, x))
        of_x, of_weight, _ = fast_paths.conv1x1_backward(*maps, weight, (*needed, False))
        return None if of_x is None else _restored(of_x, x.shape, axis), of_weight, None


def _plain(x: Tensor, weight: Tensor, axis: int) -> Tensor:
    return _restored(F.linear(_rows(x, axis), weight), x.shape, axis)


def _order(axis: int) -> list[int]:
    return [*(each for each in range(6) if each != axis), axis, 6]


def _rows(x: Tensor, axis: int) -> Tensor:
    """(B, ..., grid * depth): a row for each product."""
    return x.permute(_order(axis)).flatten(5)


def _restored(rows: Tensor, shape: torch.Size, axis: int) -> Tensor:
    order = _order(axis)
    return rows.reshape([shape[each] for each in order]).permute([order.index(each) for each in range(7)])
