"""The choice between the reference of an operation and its faster implementation."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from ..errors import UserError

Arguments = ParamSpec('Arguments')
Result = TypeVar('Result')
Layer = TypeVar('Layer', bound=type[nn.Module])

CHOICES = ('fast', 'reference')
MODULE_STATE = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks')

is_transformed = getattr(torch._C, '_are_functorch_transforms_active', lambda: False)
_has_any_global_hook = getattr(nn.modules.module, '_has_any_global_hook', lambda: True)
_dispatch_modes = getattr(torch._C, '_len_torch_dispatch_stack', lambda: 0)
try:  # private operators, which a release of PyTorch may rename
    _private = torch.ops.mkldnn._linear_pointwise, torch.ops.aten.gelu_backward.grad_input
    DTYPES = {torch.float32} if torch.backends.mkldnn.is_available() else set()
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        DTYPES.add(torch.bfloat16)
except AttributeError as error:
    logging.getLogger('mlp_dense').warning("PyTorch's own, slower operators run on a CPU: %s.", error)
    DTYPES = set()

_choice = 'fast'  # torch.compile guards it, and compiles again if it changes
_known_layers: set[type[nn.Module]] = {nn.Identity, nn.BatchNorm2d, nn.SyncBatchNorm}


@contextmanager
def use(choice: str) -> Iterator[None]:
    """Run every operation as its reference in plain PyTorch (``'reference'``), or faster if possible (``'fast'``).

    The choice holds for all threads. Gradients follow their forward pass.

    Raises:
        UserError: The choice does not exist.
    """
    if choice not in CHOICES:
        raise UserError(f'kernels.use({choice!r}): this choice does not exist; choose one of {", ".join(CHOICES)}.')
    global _choice
    before, _choice = _choice, choice
    try:
        yield
    finally:
        _choice = before


def known_layer(layer: Layer) -> Layer:
    """Mark a layer class (as a decorator) whose parameters define its result, so that an operation may read them."""
    _known_layers.add(layer)
    return layer


def operation(reference: Callable[Arguments, Result], fast: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Return a function that runs `fast` if :func:`applies` accepts its arguments, else `reference`."""

    @wraps(reference)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return (fast if applies(*args, *kwargs.values()) else reference)(*args, **kwargs)

    return call


def applies(*arguments: object) -> bool:
    """Whether the faster implementations accept these tensors and layers (other arguments do not matter).

    All unknown cases use the references. Exporters, torch.func, forward-mode differentiation and dispatch modes need
    PyTorch's own operators, autocast chooses types by itself, and hooked or replaced layers must be called.
    """
    if (
        _choice == 'reference'
        or not torch.backends.mkldnn.enabled
        or torch.compiler.is_exporting()
        or torch.jit.is_tracing()
        or is_transformed()
        or torch.is_autocast_enabled('cpu')
        or torch.autograd.forward_ad._current_level >= 0
        or (not torch.compiler.is_compiling() and _dispatch_modes())  # the compiler traces with a mode of its own
    ):
        return False
    layers = [argument for argument in arguments if isinstance(argument, nn.Module)]
    if not all(_is_known(layer) for layer in layers):
        return False
    parameters = [getattr(layer, name, None) for layer in layers for name in ('weight', 'bias')]
    tensors = [tensor for tensor in (*arguments, *parameters) if isinstance(tensor, Tensor)]
    return len({tensor.dtype for tensor in tensors}) == 1 and all(
        type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == 'cpu' and tensor.dtype in DTYPES
        for tensor in tensors
    )


def _is_known(layer: nn.Module) -> bool:
    """Whether a layer computes what its class defines: neither hooked, nor wrapped, nor with a `forward` of its own."""
    return (
        type(layer) in _known_layers
        and not _has_any_global_hook()
        and 'forward' not in layer.__dict__
        and not any(getattr(layer, name) for name in MODULE_STATE)
    )
