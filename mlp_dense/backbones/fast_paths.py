"""Faster ways to the same numbers, most of them on a CPU through oneDNN: nothing here is needed for correctness.

docs/performance.md says why. Feature maps are (B, H, W, C), contiguous, where nothing else is said.
"""

import logging
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

library = torch.library.Library('mlp_dense', 'DEF')

is_transformed = getattr(torch._C, '_are_functorch_transforms_active', lambda: False)
try:
    _linear_pointwise = torch.ops.mkldnn._linear_pointwise
    convolution_backward = torch.ops.aten.convolution_backward
    _gelu_backward = torch.ops.aten.gelu_backward.grad_input
    _available = torch.backends.mkldnn.is_available()
    _DTYPES = (torch.float32, torch.bfloat16) if torch.ops.mkldnn._is_mkldnn_bf16_supported() else (torch.float32,)
except AttributeError as error:  # they are private, and may change with a release of PyTorch
    logging.getLogger('mlp_dense').warning("On a CPU PyTorch's own, slower operators run: %s.", error)
    _available = False


def applies(*tensors: Tensor | None) -> bool:
    """Whether the functions below take these tensors. Not while an exporter or torch.func traces a model: they
    must see PyTorch's own operators; nor in an autocast region, which chooses the types."""
    known = [tensor for tensor in tensors if tensor is not None]
    return (
        _available
        and torch.backends.mkldnn.enabled
        and not torch.compiler.is_exporting()
        and not torch.jit.is_tracing()
        and not is_transformed()
        and not torch.is_autocast_enabled('cpu')
        and len({tensor.dtype for tensor in known}) == 1
        and all(tensor.device.type == 'cpu' and tensor.dtype in _DTYPES for tensor in known)
    )


def applies_to_inference(*tensors: Tensor | None) -> bool:
    return applies(*tensors) and not need_gradients(*tensors)


def applies_to_training(x: Tensor, *weights: Tensor | None) -> bool:
    # With one thread PyTorch gives a 1x1 convolution to another, slow implementation; torch.compile cannot ask.
    several_threads = torch.compiler.is_compiling() or torch.get_num_threads() > 1
    return x.ndim == 4 and applies(x, *weights) and need_gradients(x, *weights) and several_threads


def need_gradients(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _opaque(compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Wraps `compute` as a custom operator (inference only), so that torch.compile calls it instead of generating
    slower code on a CPU."""
    name = compute.__name__.strip('_')
    # Not torch.library.custom_op: that would cost every import a second for torch._dynamo.
    library.define(name + torch.library.infer_schema(compute, mutates_args=()))
    library.impl(name, compute, 'CompositeExplicitAutograd')
    torch.library.register_fake(f'mlp_dense::{name}', compute, lib=library)
    operator = getattr(torch.ops.mlp_dense, name).default

    @wraps(compute)
    def call(*args: Any) -> Tensor:
        return (operator if torch.compiler.is_compiling() else compute)(*args)

    return call


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = 'none') -> Tensor:
    """A linear layer over the channels, and an activation (none, gelu or relu)."""
    if applies_to_inference(x, weight, bias):
        return _linear(x, weight, bias, activation)
    if not applies_to_training(x, weight, bias):
        x = F.linear(x, weight, bias)
    elif torch.compiler.is_compiling():
        x = _conv1x1(x, weight, bias)
    else:
        x = TrainedLinear.apply(x, weight, bias)
    return x if activation == 'none' else getattr(F, activation)(x)


@_opaque
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    return _linear_pointwise(x, weight, bias, activation, [], 'none')


def _conv1x1(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """For training: the backward pass of a convolution is oneDNN's as well."""
    return F.conv2d(x.permute(0, 3, 1, 2), weight[:, :, None, None], bias).permute(0, 2, 3, 1)


def conv1x1_backward(gradient: Tensor, x: Tensor, weight: Tensor, needed: tuple[bool, ...]) -> list[Tensor | None]:
    """The gradients of the input, of the weight and of the bias of a linear layer."""
    needs_x, needs_weight, needs_bias = needed
    of_bias = gradient.sum((0, 1, 2)) if needs_bias else None  # oneDNN would take longer for it
    shape = x.shape
    gradient, x = (each.flatten(1, 2).unsqueeze(1) for each in (gradient, x))  # oneDNN is faster with longer rows
    turned = needs_weight and _is_faster_turned(weight)
    of_x, of_weight = _gradients(gradient, x, weight, (needs_x, needs_weight and not turned))
    if turned:
        of_weight = _gradients(x, gradient, weight.t(), (False, True))[1].t().contiguous()
    return [None if of_x is None else of_x.view(shape), of_weight, of_bias]


def _is_faster_turned(weight: Tensor) -> bool:
    """Whether oneDNN computes the gradient of (out, in) faster as that of (in, out): it wants the wider of the two maps
    as its input, unless lines of that one share places of the nearest cache, a multiple of 4 KiB apart."""
    out, wide = len(weight), max(weight.shape)
    return (out == wide) != (wide * weight.element_size() % 4096 == 0) and out != weight.shape[1]


def _gradients(gradient: Tensor, x: Tensor, weight: Tensor, needed: tuple[bool, bool]) -> tuple[Tensor | None, ...]:
    maps = gradient.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2), weight[:, :, None, None]
    of_x, of_weight, _ = convolution_backward(*maps, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, (*needed, False))
    return None if of_x is None else of_x.permute(0, 2, 3, 1), None if of_weight is None else of_weight.flatten(1)


def with_graph(
    function: Callable[..., Tensor], inputs: tuple[Tensor, ...], needed: tuple[bool, ...], gradient: Tensor
) -> tuple[Tensor | None, ...]:
    """The gradients of a function where they must have a derivative themselves (create_graph=True)."""
    chosen = [tensor for tensor, need in zip(inputs, needed, strict=True) if need]
    found = iter(torch.autograd.grad(function(*inputs), chosen, gradient, create_graph=True))
    return tuple(next(found) if need else None for need in needed)


class TrainedLinear(Function):
    """`linear` through the functions above."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        return _conv1x1(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        if torch.is_grad_enabled():
            return with_graph(F.linear, (x, weight, bias), ctx.needs_input_grad, gradient)
        return tuple(conv1x1_backward(gradient, x, weight, ctx.needs_input_grad))


def mlp(x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, keep_gelu: bool = False) -> Tensor:
    """Two linear layers over the channels with GELU between, which training computes again instead of keeping it."""
    weights = weight1, bias1, weight2, bias2
    # torch.compile decides for itself what to recompute.
    if not torch.compiler.is_compiling() and applies_to_training(x, *weights):
        return TrainedMLP.apply(x, *weights, keep_gelu)
    return linear(linear(x, weight1, bias1, 'gelu'), weight2, bias2)


def _plain_mlp(x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
    return F.linear(F.gelu(F.linear(x, weight1, bias1)), weight2, bias2)


class TrainedMLP(Function):
    """`mlp`; the gradient of GELU takes the place of the one behind it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights_and_choice: Any) -> Tensor:
        weight1, bias1, weight2, bias2, keep_gelu = weights_and_choice
        hidden = _conv1x1(x, weight1, bias1).contiguous()
        activated = F.gelu(hidden)
        ctx.save_for_backward(x, hidden, activated if keep_gelu else None, weight1, bias1, weight2, bias2)
        return _conv1x1(activated, weight2, bias2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, hidden, activated, weight1, bias1, weight2, bias2 = ctx.saved_tensors
        needed = ctx.needs_input_grad[:5]
        if torch.is_grad_enabled():
            return *with_graph(_plain_mlp, (x, weight1, bias1, weight2, bias2), needed, gradient), None
        need_x, *need_first, need_weight2, need_bias2 = needed
        activated = F.gelu(hidden) if activated is None else activated
        gradient, *second = conv1x1_backward(gradient, activated, weight2, (True, need_weight2, need_bias2))
        del activated
        gradient = _gelu_backward(gradient, hidden, grad_input=gradient)
        return *conv1x1_backward(gradient, x, weight1, (need_x, *need_first)), *second, None


def doubled(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A transposed convolution of (B, C, H, W) whose kernels (C, out, 2, 2) do not overlap."""
    if bias is not None and not torch.compiler.is_compiling() and applies_to_training(x, weight, bias):
        return TrainedDoubling.apply(x, weight, bias)
    return F.conv_transpose2d(x, weight, bias, stride=2)


class TrainedDoubling(Function):
    """Its gradient is that of a linear layer to four pixels: oneDNN takes many times as long for the one of the
    weights of a transposed convolution."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        return F.conv_transpose2d(x, weight, bias, stride=2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        if torch.is_grad_enabled():
            return with_graph(partial(F.conv_transpose2d, stride=2), (x, weight, bias), ctx.needs_input_grad, gradient)
        gradient = gradient.permute(0, 2, 3, 1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (B, H, 2, W, 2, out)
        gradient, linear = gradient.transpose(2, 3).flatten(3), weight.permute(2, 3, 1, 0).flatten(0, 2)
        of_x, of_weight, of_bias = conv1x1_backward(gradient, x.permute(0, 2, 3, 1), linear, ctx.needs_input_grad)
        return (
            None if of_x is None else of_x.permute(0, 3, 1, 2),
            None if of_weight is None else of_weight.unflatten(0, (2, 2, -1)).permute(3, 2, 0, 1),
            None if of_bias is None else of_bias.unflatten(0, (4, -1)).sum(0),
        )


class DepthwiseShift(Function):
    """Moves every channel: a depthwise convolution with one 1 in each kernel. The gradient needs no feature map."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor) -> Tensor:
        ctx.kernel = kernel
        return depthwise(x.permute(0, 3, 1, 2), kernel).permute(0, 2, 3, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return DepthwiseShift.apply(gradient, ctx.kernel.flip(2, 3)), None


@_opaque
def depthwise(x: Tensor, kernel: Tensor) -> Tensor:
    """(B, C, H, W), each channel with its own kernel (C, 1, odd, odd)."""
    return F.conv2d(x, kernel, padding=[size // 2 for size in kernel.shape[2:]], groups=len(kernel))


@_opaque
def group_norm(x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    # A permutation outside of the operator would have torch.compile compute residual sums again for each norm.
    return F.group_norm(x.permute(0, 3, 1, 2), groups, weight, bias, eps).permute(0, 2, 3, 1)
