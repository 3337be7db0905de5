"""Faster ways to the same numbers, most of them on a CPU through oneDNN: nothing here is needed for correctness.

docs/performance.md says why. Feature maps are (B, H, W, C), contiguous, where nothing else is said.
"""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

library = torch.library.Library('mlp_dense', 'DEF')

is_transformed = getattr(torch._C, '_are_functorch_transforms_active', lambda: False)
try:
    _linear_pointwise = torch.ops.mkldnn._linear_pointwise
    _convolution_backward = torch.ops.aten.convolution_backward
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
    x = _conv1x1(x, weight, bias) if applies_to_training(x, weight, bias) else F.linear(x, weight, bias)
    return x if activation == 'none' else getattr(F, activation)(x)


@_opaque
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    return _linear_pointwise(x, weight, bias, activation, [], 'none')


def _conv1x1(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """For training: the backward pass of a convolution is oneDNN's as well."""
    return F.conv2d(x.permute(0, 3, 1, 2), weight[:, :, None, None], bias).permute(0, 2, 3, 1)


def _conv1x1_backward(gradient: Tensor, x: Tensor, weight: Tensor, needed: tuple[bool, ...]) -> list[Tensor | None]:
    maps = gradient.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2)
    of_x, of_weight, of_bias = _convolution_backward(
        *maps, weight[:, :, None, None], [len(weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, needed
    )
    of_x = None if of_x is None else of_x.permute(0, 2, 3, 1)
    return [of_x, None if of_weight is None else of_weight.flatten(1), of_bias]


class TrainedMLP(Function):
    """Two linear layers with GELU between, which is computed again in the backward pass instead of kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
        hidden = _conv1x1(x, weight1, bias1).contiguous()
        ctx.save_for_backward(x, hidden, weight1, bias1, weight2, bias2)
        return _conv1x1(F.gelu(hidden), weight2, bias2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, hidden, weight1, bias1, weight2, bias2 = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: the gradient must have a derivative itself
            needed = [
                t for t, need in zip((x, weight1, bias1, weight2, bias2), ctx.needs_input_grad, strict=True) if need
            ]
            out = F.linear(F.gelu(F.linear(x, weight1, bias1)), weight2, bias2)
            gradients = iter(torch.autograd.grad(out, needed, gradient, create_graph=True))
            return tuple(next(gradients) if need else None for need in ctx.needs_input_grad)
        need_x, *need_first, need_weight2, need_bias2 = ctx.needs_input_grad
        gradient, activated = gradient.contiguous(), F.gelu(hidden)
        gradient, *second = _conv1x1_backward(gradient, activated, weight2, (True, need_weight2, need_bias2))
        del activated
        gradient = _gelu_backward(gradient, hidden, grad_input=gradient)
        return *_conv1x1_backward(gradient, x, weight1, (need_x, *need_first)), *second


class DepthwiseShift(Function):
    """Moves every channel: a depthwise convolution with one 1 in each kernel. The gradient needs no feature map."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor) -> Tensor:
        ctx.kernel = kernel
        return depthwise(x.permute(0, 3, 1, 2), kernel).permute(0, 2, 3, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return DepthwiseShift.apply(gradient, ctx.kernel.flip(2, 3)), None


class TrainedDepthwise(Function):
    """A depthwise convolution of (B, H, W, C) whose kernels are trained."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor) -> Tensor:
        ctx.save_for_backward(x, kernel)
        return depthwise(x.permute(0, 3, 1, 2), kernel).permute(0, 2, 3, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, kernel = ctx.saved_tensors
        need_x, need_kernel = ctx.needs_input_grad
        of_x = TrainedDepthwise.apply(gradient, kernel.flip(2, 3)) if need_x else None
        if not need_kernel:
            return of_x, None
        if torch.is_grad_enabled():  # create_graph=True
            out = F.conv2d(x.permute(0, 3, 1, 2), kernel, padding='same', groups=len(kernel))
            return of_x, torch.autograd.grad(out, kernel, gradient.permute(0, 3, 1, 2), create_graph=True)[0]
        # Of kernels along the width oneDNN is ten times slower than along the height.
        turned = kernel.shape[2] < kernel.shape[3]
        maps = [t.transpose(1, 2).contiguous() if turned else t.contiguous() for t in (gradient, x)]
        kernel = kernel.transpose(2, 3) if turned else kernel
        padding, needed = [size // 2 for size in kernel.shape[2:]], (False, True, False)
        maps = [t.permute(0, 3, 1, 2) for t in maps]
        _, found, _ = _convolution_backward(
            *maps, kernel, None, [1, 1], padding, [1, 1], False, [0, 0], len(kernel), needed
        )
        return of_x, found.transpose(2, 3) if turned else found


class TrainedWaves(Function):
    """The real and the imaginary parts of waves (..., C) end to end, (..., 2C)."""

    @staticmethod
    def forward(ctx: Any, phase: Tensor, amplitude: Tensor) -> Tensor:
        cos, sin = phase.cos(), phase.sin()
        ctx.save_for_backward(phase, amplitude, cos, sin)
        return torch.cat([amplitude * cos, amplitude * sin], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradients_of_waves(ctx, *gradient.chunk(2, -1))


def gradients_of_waves(ctx: Any, of_real: Tensor, of_imaginary: Tensor) -> tuple[Tensor, Tensor]:
    phase, amplitude, cos, sin = ctx.saved_tensors
    if torch.is_grad_enabled():  # create_graph=True
        cos, sin = phase.cos(), phase.sin()
    of_phase = (of_imaginary * cos).addcmul(of_real, sin, value=-1) * amplitude
    return of_phase, (of_real * cos).addcmul(of_imaginary, sin)


@_opaque
def depthwise(x: Tensor, kernel: Tensor) -> Tensor:
    """(B, C, H, W), each channel with its own kernel (C, 1, odd, odd)."""
    return F.conv2d(x, kernel, padding=[size // 2 for size in kernel.shape[2:]], groups=len(kernel))


@_opaque
def group_norm(x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    # A permutation outside of the operator would have torch.compile compute residual sums again for each norm.
    return F.group_norm(x.permute(0, 3, 1, 2), groups, weight, bias, eps).permute(0, 2, 3, 1)


def nchw_output(x: Tensor) -> Tensor:
    """A copy of `x`, (B, C, H, W), in NCHW order, in which mmcv's RoIAlign reads memory, whatever the strides say; its
    gradient is kept in channels_last memory like those inside the stages."""
    if x.requires_grad and not torch.compiler.is_compiling():
        # None: of a second derivative, where no gradient comes from this output.
        x.register_hook(
            lambda gradient: None if gradient is None else gradient.contiguous(memory_format=torch.channels_last)
        )
    return x.clone(memory_format=torch.contiguous_format)
