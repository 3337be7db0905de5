"""Faster ways to the same numbers on a CPU, most of them through oneDNN.

docs/performance.md says why. Maps are (B, C, H, W) in channels_last memory.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def takes(*tensors: Tensor | None) -> bool:
    """Whether the functions below take these tensors.

    Exporters and counters of operations trace a model, and must see the plain operators; an autocast region chooses
    the types of its own.
    """
    known = [tensor for tensor in tensors if tensor is not None]
    return (
        not torch.compiler.is_exporting()
        and not torch.jit.is_tracing()
        and not torch.is_autocast_enabled('cpu')
        and len({tensor.dtype for tensor in known}) == 1
        and all(_computes(tensor.device.type, tensor.dtype) for tensor in known)
    )


# Compiled code keeps the answers of the time of its compilation, since compilers cannot trace the questions.
@torch.compiler.assume_constant_result
def _computes(device: str, dtype: torch.dtype) -> bool:
    if device != 'cpu' or not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


@torch.compiler.assume_constant_result
def _num_threads() -> int:
    return torch.get_num_threads()


def infers(*tensors: Tensor | None) -> bool:
    return takes(*tensors) and not _need_gradients(*tensors)


def trains(*tensors: Tensor | None) -> bool:
    # With one thread PyTorch gives a 1x1 convolution to another, slow implementation.
    return takes(*tensors) and _need_gradients(*tensors) and _num_threads() > 1


def _need_gradients(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _opaque(compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Makes it one operator, without a gradient, for torch.compile: inductor's own loops are slower on a CPU."""
    operator = torch.library.custom_op(f'mlp_dense::{compute.__name__}', compute, mutates_args=())
    operator.register_fake(compute)

    @wraps(compute)
    def call(*args: Any) -> Tensor:
        return (operator if torch.compiler.is_compiling() else compute)(*args)

    return call


@_opaque
def linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    """A linear map over the channels, for inference, with the activation (none, gelu or relu) in the same pass."""
    x = torch.ops.mkldnn._linear_pointwise(x.permute(0, 2, 3, 1), weight, bias, activation, [], 'none')
    return x.permute(0, 3, 1, 2)


@_opaque
def group_norm(x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    return F.group_norm(x, groups, weight, bias, eps)


@_opaque
def depthwise(x: Tensor, kernel: Tensor) -> Tensor:
    return F.conv2d(x, kernel, padding=[size // 2 for size in kernel.shape[2:]], groups=len(kernel))


@_opaque
def index_select(x: Tensor, dim: int, index: Tensor) -> Tensor:
    return x.index_select(dim, index)


@_opaque
def softmax(x: Tensor, dim: int) -> Tensor:
    return x.softmax(dim)


def conv1x1(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A linear map over the channels, for training: the backward pass of a convolution is oneDNN's as well."""
    return F.conv2d(x, weight[:, :, None, None], bias)


class DepthwiseShift(Function):
    """Moves every channel: a depthwise convolution whose kernels hold a single one. Keeps no map for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor) -> Tensor:
        ctx.kernel = kernel
        return depthwise(x, kernel)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return DepthwiseShift.apply(gradient, ctx.kernel.flip(2, 3)), None


class TrainedMLP(Function):
    """Two linear maps with GELU between, which is computed again in the backward pass instead of kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
        hidden = conv1x1(x, weight1, bias1)
        ctx.save_for_backward(x, hidden, weight1, weight2)
        return conv1x1(_gelu(hidden), weight2, bias2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, hidden, weight1, weight2 = ctx.saved_tensors
        need_x, *need_first, need_weight2, need_bias2 = ctx.needs_input_grad
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        activated = _gelu(hidden)
        _, *second = _conv1x1_backward(gradient, activated, weight2, (False, need_weight2, need_bias2))
        # The next gradient takes the place of the activations, since new memory costs more than the arithmetic.
        hidden, activated = hidden.permute(0, 2, 3, 1), activated.permute(0, 2, 3, 1).flatten(0, 2)
        torch.mm(gradient.permute(0, 2, 3, 1).flatten(0, 2), weight2, out=activated)
        gradient = activated.view(hidden.shape)
        torch.ops.aten.gelu_backward.grad_input(gradient, hidden, grad_input=gradient)
        return *_conv1x1_backward(gradient.permute(0, 3, 1, 2), x, weight1, (need_x, *need_first)), *second


def _gelu(x: Tensor) -> Tensor:
    """On the memory as it lies: PyTorch's kernel is 2.5 times slower on other than contiguous tensors."""
    return F.gelu(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _conv1x1_backward(gradient: Tensor, x: Tensor, weight: Tensor, needed: tuple[bool, ...]) -> list[Tensor | None]:
    of_x, of_weight, of_bias = torch.ops.aten.convolution_backward(
        gradient, x, weight[:, :, None, None], [len(weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, needed
    )
    return [of_x, None if of_weight is None else of_weight.flatten(1), of_bias]
