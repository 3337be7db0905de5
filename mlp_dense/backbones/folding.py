"""Folding of norms into linear layers: at inference a BatchNorm is a scale and a shift of every channel."""

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def is_foldable(norm: nn.Module) -> bool:
    """LayerNorm and GroupNorm are not: they depend on the input. Neither is a BatchNorm without running statistics."""
    return isinstance(norm, _BatchNorm) and norm.running_mean is not None


def fold_before(norm: nn.Module, *layers: nn.Linear, repeats: int = 1) -> None:
    """Folds a norm into the layers that its output goes to; they take every channel `repeats` times in a row."""
    scale, shift = (t.repeat_interleave(repeats) for t in _scale_and_shift(norm))
    for layer in layers:
        weight = layer.weight.double()
        bias = 0 if layer.bias is None else layer.bias
        _set(layer, weight * scale, weight @ shift + bias)


def fold_after(layer: nn.Linear | nn.Conv2d, norm: nn.Module) -> None:
    """Folds a norm into the layer that its input comes from."""
    scale, shift = _scale_and_shift(norm)
    bias = 0 if layer.bias is None else layer.bias
    _set(layer, (layer.weight.flatten(1) * scale[:, None]).view_as(layer.weight), shift + bias * scale)


def _scale_and_shift(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


def _set(layer: nn.Linear | nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    layer.bias = nn.Parameter(bias.to(layer.weight.dtype), False)
    layer.weight = nn.Parameter(weight.to(layer.weight.dtype), False)
