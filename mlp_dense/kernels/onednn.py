"""Faster implementations through oneDNN for arguments that ``dispatch.applies`` accepts (docs/performance.md)."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from . import reference
from .dispatch import is_transformed

library = torch.library.Library('mlp_dense', 'DEF')

_linear_pointwise: Any = getattr(torch.ops.mkldnn, '_linear_pointwise', None)
_gelu_backward = torch.ops.aten.gelu_backward
_convolution_backward = torch.ops.aten.convolution_backward
_is_legacy_batched = getattr(torch._C._functorch, 'is_legacy_batchedtensor', lambda tensor: False)


def needs_gradients(*tensors: Tensor | None) -> bool:
    """Whether autograd records an operation on these tensors."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _is_batched(gradient: Tensor) -> bool:
    """Whether the backward pass runs in vmap."""
    return is_transformed() or _is_legacy_batched(gradient)


def _uses_convolutions(x: Tensor) -> bool:
    # With one thread PyTorch runs a slow 1x1 convolution. A compiler cannot query the number of threads.
    return x.ndim == 4 and (torch.compiler.is_compiling() or torch.get_num_threads() > 1)


# Linear layers


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Run oneDNN's linear layer for inference, and its 1x1 convolution, with a faster backward pass, for training."""
    if not needs_gradients(x, weight, bias):
        return _linear(x, weight, bias, 'none')
    if not _uses_convolutions(x):
        return reference.linear(x, weight, bias)
    return (_conv1x1 if torch.compiler.is_compiling() else TrainedLinear.apply)(x, weight, bias)


def mlp(x: Tensor, fc1: nn.Linear, fc2: nn.Linear) -> Tensor:
    """Run :func:`expert_mlp`, but let a compiler decide what to recompute in training."""
    weights = fc1.weight, fc1.bias, fc2.weight, fc2.bias
    if torch.compiler.is_compiling() and needs_gradients(x, *weights):
        return reference.mlp(x, fc1, fc2)
    return expert_mlp(x, *weights)


def expert_mlp(x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
    """Let oneDNN's linear layer apply GELU for inference; for training, compute GELU again instead of storing it."""
    weights = weight1, bias1, weight2, bias2
    if not needs_gradients(x, *weights):
        return _linear(_linear(x, weight1, bias1, 'gelu'), weight2, bias2, 'none')
    if torch.compiler.is_compiling() or not _uses_convolutions(x):
        return reference.expert_mlp(x, *weights)
    return TrainedMLP.apply(x, *weights)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    operator = torch.ops.mlp_dense.linear.default if torch.compiler.is_compiling() else _run_linear
    return operator(x, weight, bias, activation)


def _run_linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    return _linear_pointwise(x, weight, bias, activation, [], 'none')


# An operator that torch.compile calls instead of generating slower code (inference only). Not torch.library.custom_op,
# which would cost every import a second for torch._dynamo.
library.define(f'linear{torch.library.infer_schema(_run_linear, mutates_args=())}')
library.impl('linear', _run_linear, 'CompositeExplicitAutograd')
torch.library.register_fake(
    'mlp_dense::linear', lambda x, weight, *_: x.new_empty(*x.shape[:-1], len(weight)), lib=library
)


def _conv1x1(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply a linear layer as a convolution, whose backward pass is oneDNN's as well."""
    return F.conv2d(x.permute(0, 3, 1, 2), weight[:, :, None, None], bias).permute(0, 2, 3, 1)


def conv1x1_backward(gradient: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool]) -> list[Tensor | None]:
    """Return the gradients of input, weight and bias of a linear layer; None for those that are not needed."""
    bias_gradient = gradient.sum((0, 1, 2)) if needed[2] else None  # oneDNN takes longer for it
    # oneDNN is faster with longer rows.
    batch, height, width, _ = x.shape
    maps = [tensor.reshape(batch, 1, height * width, tensor.shape[3]).permute(0, 3, 1, 2) for tensor in (gradient, x)]
    x_gradient, weight_gradient, _ = _convolution_backward(
        *maps, weight[:, :, None, None], None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, (*needed[:2], False)
    )
    return [
        None if x_gradient is None else x_gradient.permute(0, 2, 3, 1).reshape(x.shape),
        None if weight_gradient is None else weight_gradient.reshape(weight.shape),
        bias_gradient,
    ]


class TrainedLinear(Function):
    """A linear layer for training."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        return _conv1x1(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, _ = ctx.saved_tensors
        return tuple(conv1x1_backward(gradient, x, weight, ctx.needs_input_grad))


def along_axis(x: Tensor, layer: nn.Linear, axis: int) -> Tensor:
    """In training, store the windows that several layers share, instead of a reordered copy for each layer."""
    if torch.compiler.is_compiling() or layer.bias is not None or not needs_gradients(x, layer.weight):
        return reference.along_axis(x, layer, axis)
    return AlongAxis.apply(x, layer.weight, axis)


class AlongAxis(Function):
    """A linear layer along an axis of windows for training."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, axis: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.axis = axis
        return reference.segments_last(linear(reference.segment_rows(x, axis), weight), x.shape, axis)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), needed = ctx.saved_tensors, (*ctx.needs_input_grad[:2], False)
        gradient, rows = (reference.segment_rows(tensor, ctx.axis) for tensor in (gradient, x))
        rows_gradient, weight_gradient, _ = conv1x1_backward(gradient, rows, weight, needed)
        x_gradient = None if rows_gradient is None else reference.segments_last(rows_gradient, x.shape, ctx.axis)
        return x_gradient, weight_gradient, None


class TrainedMLP(Function):
    """Two linear layers with GELU between them for training."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
        hidden = _conv1x1(x, weight1, bias1).contiguous()
        ctx.save_for_backward(x, weight1, bias1, weight2, bias2, hidden)
        return _conv1x1(F.gelu(hidden), weight2, bias2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight1, bias1, weight2, _, hidden = ctx.saved_tensors
        needed, may_overwrite = ctx.needs_input_grad, not (torch.is_grad_enabled() or _is_batched(gradient))
        if torch.is_grad_enabled():  # second derivatives, for which the saved tensor would be a constant
            hidden = _conv1x1(x, weight1, bias1)
        inner, *second = conv1x1_backward(gradient, F.gelu(hidden), weight2, (True, *needed[3:]))
        inner = _gelu_backward(inner, hidden, **(dict(grad_input=inner) if may_overwrite else {}))
        return *conv1x1_backward(inner, x, weight1, needed[:3]), *second


def upsample(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Use a linear layer in training: oneDNN is many times slower at a transposed convolution's kernel gradient."""
    if torch.compiler.is_compiling() or not (needs_gradients(x, weight, bias) and _uses_convolutions(x)):
        return reference.upsample(x, weight, bias)
    matrix = weight.permute(2, 3, 1, 0).flatten(0, 2)  # (row, column, out) of four pixels
    out = TrainedLinear.apply(x.permute(0, 2, 3, 1), matrix, None if bias is None else bias.repeat(4))
    out = out.unflatten(3, (2, 2, -1)).transpose(2, 3)  # (B, H, row, W, column, out)
    return out.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


# Shifts


def shift(x: Tensor, offsets: Sequence[int], axis: int, group: int = 1) -> Tensor:
    """Run a depthwise convolution whose kernels contain a single 1; its gradient needs no feature map."""
    if torch.compiler.is_compiling():
        return reference.shift(x, offsets, axis, group)
    return Shift.apply(x, _shift_kernel(tuple(offsets), axis, group, x.shape[3], x.dtype))


@cache
def _shift_kernel(offsets: tuple[int, ...], axis: int, group: int, channels: int, dtype: torch.dtype) -> Tensor:
    reach = max(map(abs, offsets))
    with torch.inference_mode(False):
        kernel = torch.zeros(channels, 2 * reach + 1, dtype=dtype)
        for channel in range(channels):
            kernel[channel, reach + offsets[channel // group % len(offsets)]] = 1
        return kernel.view((channels, 1, 1, -1) if axis == 2 else (channels, 1, -1, 1))


class Shift(Function):
    """A depthwise convolution with fixed kernels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor) -> Tensor:
        ctx.save_for_backward(kernel)
        return reference.depthwise(x, kernel)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kernel,) = ctx.saved_tensors
        return Shift.apply(gradient, kernel.flip(2, 3)), None
