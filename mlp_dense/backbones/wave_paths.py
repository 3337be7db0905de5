"""Wave-MLP's faster ways in training on a CPU, see `fast_paths.py`."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from . import fast_paths


class TrainedDepthwise(Function):
    """A depthwise convolution of (B, H, W, C) whose kernels are trained."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor) -> Tensor:
        ctx.save_for_backward(x, kernel)
        return fast_paths.depthwise(x.permute(0, 3, 1, 2), kernel).permute(0, 2, 3, 1)

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
        _, found, _ = fast_paths.convolution_backward(
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
