"""Faster ways to the same numbers on a GPU, in plain PyTorch: nothing here is needed for correctness.

There the products are quick, and the time goes into passes over the feature maps, so every way takes fewer of them.
Feature maps are (B, H, W, C), contiguous, where nothing else is said. docs/performance.md says more.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from .fast_paths import is_transformed
from .wave_paths import gradients_of_waves

HALF_TYPES = (torch.float16, torch.bfloat16)


def applies(*tensors: Tensor) -> bool:
    """Whether the functions below take these tensors. Not while a compiler, an exporter or torch.func traces a model:
    they know PyTorch's own operators, and a compiler joins passes by itself."""
    return is_on_gpu(*tensors) and not torch.compiler.is_compiling()


def is_on_gpu(*tensors: Tensor) -> bool:
    """The same, but also while torch.compile traces a model."""
    return (
        all(tensor.is_cuda for tensor in tensors)
        and not torch.compiler.is_exporting()
        and not torch.jit.is_tracing()
        and not is_transformed()
    )


def has_tensor_cores_for(x: Tensor) -> bool:
    """Also under torch.compile."""
    return is_on_gpu(x) and x.dtype in HALF_TYPES


def in_autocast_type(x: Tensor) -> Tensor:
    """Once for all products that read it: each would make a copy of its own of what LayerNorm gives in float32."""
    kind = x.device.type
    if x.dtype == torch.float32 and applies(x) and torch.is_autocast_enabled(kind):
        return x.to(torch.get_autocast_dtype(kind))
    return x


def group_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """GroupNorm with one group of (B, C, H, W), in the type of `x` in autocast regions too. PyTorch's own takes NCHW
    memory, which means copies, and computes the statistics of an image by one of more than a hundred processors."""
    return _GroupNorm.apply(x.permute(0, 2, 3, 1).contiguous(), weight, bias, eps).permute(0, 3, 1, 2)


class _GroupNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        mean, variance = _moments(x)
        inverse = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, bias, mean, inverse)
        ctx.eps = eps
        scale = weight * inverse
        return torch.addcmul((bias - mean * scale).to(x.dtype), x, scale.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: the gradient must have a derivative itself
            needed = [t for t, need in zip((x, weight, bias), ctx.needs_input_grad, strict=False) if need]
            out = F.group_norm(x.permute(0, 3, 1, 2), 1, weight.to(x.dtype), bias.to(x.dtype), ctx.eps)
            gradients = iter(torch.autograd.grad(out.permute(0, 2, 3, 1), needed, gradient, create_graph=True))
            return tuple(next(gradients) if need else None for need in ctx.needs_input_grad)
        gradient = gradient.contiguous()
        # Products of fp16 would overflow under a scaled loss.
        products = gradient * (x.float() if x.dtype == torch.float16 else x)
        of_shift, of_scale = (each.sum((1, 2), True, dtype=mean.dtype) for each in (gradient, products))
        del products
        of_scale = (of_scale - mean * of_shift) * inverse  # of the normalized x
        of_x = None
        if ctx.needs_input_grad[0]:
            # In fp16 what is small for maps of large values is multiplied last.
            first, last = (1.0, inverse) if x.dtype == torch.float16 else (inverse, None)
            size = x.shape[1:].numel()
            constant, slope = ((each * weight).sum(3, True) / size * first for each in (of_shift, of_scale))
            slope = slope * inverse
            of_x = torch.addcmul((mean * slope - constant).to(x.dtype), x, -slope.to(x.dtype))
            of_x.addcmul_(gradient, (weight * first).to(x.dtype))
            if last is not None:
                of_x.mul_(last.to(x.dtype))
        return of_x, *(each.sum(0).flatten().to(weight.dtype) for each in (of_scale, of_shift)), None


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each image, (B, 1, 1, 1), in float32 at least."""
    images = x.flatten(1)
    if x.dtype in HALF_TYPES:  # rounded to a half type, what remains of a difference of squares in float32 is enough
        mean = images.sum(1, dtype=torch.float32) / images.shape[1]
        squares = torch.linalg.vector_norm(images, dim=1, dtype=torch.float32).square() / images.shape[1]
        variance = (squares - mean.square()).clamp(min=0)
    else:
        variance, mean = torch.var_mean(images, 1, correction=0)
    return mean.view(-1, 1, 1, 1), variance.view(-1, 1, 1, 1)


class Shift(Function):
    """Reads channel i `offsets[i]` pixels further along an axis, by at most `reach`, with zeros from outside. Indices
    that all images share stay in the caches, so it is one read and one write. The gradient needs no feature map."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, offsets: Tensor, reach: int, axis: int) -> Tensor:
        ctx.offsets, ctx.reach, ctx.axis = offsets, reach, axis
        size = x.shape[axis]
        wanted = torch.arange(size, device=x.device)[:, None] + offsets
        wanted = wanted[None, :, None] if axis == 1 else wanted[None, None]
        inside = wanted.clamp(0, size - 1)
        out = x.gather(axis, inside.expand_as(x))
        outside, border = wanted != inside, min(reach, size)
        for start in (0, size - border):
            out.narrow(axis, start, border).masked_fill_(outside.narrow(axis, start, border), 0)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return Shift.apply(gradient, -ctx.offsets, ctx.reach, ctx.axis), None, None, None


class CyclicWindow(Function):
    """`length` rows, at least `period`, of the periodic continuation of the first `period` rows along an axis."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, period: int, start: int, length: int, axis: int) -> Tensor:
        ctx.arguments = x.shape[axis], period, start, axis
        return torch.cat([x.narrow(axis, *piece) for piece in _pieces(period, start, length)], axis)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _CyclicSum.apply(gradient, *ctx.arguments), None, None, None, None


class _CyclicSum(Function):
    """The gradient of CyclicWindow: the same one of the first `period` rows, to which the others are added."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: int, period: int, start: int, axis: int) -> Tensor:
        ctx.arguments = period, start, x.shape[axis], axis
        pieces = [x.narrow(axis, *piece) for piece in _pieces(period, -start, period)]
        unread = x.new_zeros(*x.shape[:axis], rows - period, *x.shape[axis + 1 :])
        out = torch.cat([*pieces, unread], axis)
        begin = period
        for place, count in _pieces(period, start, x.shape[axis] - period):
            out.narrow(axis, place, count).add_(x.narrow(axis, begin, count))
            begin += count
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return CyclicWindow.apply(gradient, *ctx.arguments), None, None, None, None


def _pieces(period: int, start: int, length: int) -> Iterator[tuple[int, int]]:
    """First row and number of the runs of rows without a jump."""
    start %= period
    while length > 0:
        count = min(period - start, length)
        yield start, count
        start, length = 0, length - count


class Waves(Function):
    """The real and the imaginary parts of waves."""

    @staticmethod
    def forward(ctx: Any, phase: Tensor, amplitude: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = phase.cos(), phase.sin()
        ctx.save_for_backward(phase, amplitude, cos, sin)
        return amplitude * cos, amplitude * sin

    @staticmethod
    def backward(ctx: Any, of_real: Tensor, of_imaginary: Tensor) -> tuple[Tensor, Tensor]:
        return gradients_of_waves(ctx, of_real, of_imaginary)


def full_kernel(weight: Tensor) -> Tensor:
    """Of a convolution whose output channel i reads the K input channels from i * K on, (C, K, ...), as one that reads
    all of them, (C, K * C, ...): most of its products are with zeros, but they run on tensor cores, and cuDNN takes ten
    times longer for few channels along one axis."""
    return torch.diag_embed(weight.movedim(0, -1)).movedim((-2, -1), (0, 1)).flatten(1, 2)
