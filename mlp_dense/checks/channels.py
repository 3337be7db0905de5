"""Whether what a backbone gives is what the neck or the heads take."""

from collections.abc import Sequence

from torch import nn

from ..backbones.base import MLPBackbone
from ..errors import UserError


def check_channels(model: nn.Module) -> None:
    """Compares the outputs of the backbones of this package with the `in_channels` of an FPN, or without a neck with
    those of the decode heads of mmsegmentation. UserError: they differ."""
    for part in model.modules():
        backbone = getattr(part, 'backbone', None)
        if not isinstance(backbone, MLPBackbone):
            continue
        given, neck = backbone.out_channels, getattr(part, 'neck', None)
        if neck is not None:
            if _is_a(neck, 'FPN') and tuple(neck.in_channels) != given:
                raise _error(backbone, 'model.neck', neck.in_channels, given)
            continue
        for name in ('decode_head', 'auxiliary_head'):
            heads = getattr(part, name, None)
            for head in heads if isinstance(heads, nn.ModuleList) else [heads]:
                if _is_a(head, 'BaseDecodeHead'):
                    _check_head(backbone, head, f'model.{name}')


def _check_head(backbone: MLPBackbone, head: nn.Module, name: str) -> None:
    given = backbone.out_channels
    indices = head.in_index if isinstance(head.in_index, Sequence) else [head.in_index]
    if not all(-len(given) <= i < len(given) for i in indices):
        raise UserError(
            f'{name}.in_index is {head.in_index}, but {type(backbone).__name__} gives {len(given)} feature maps: '
            'change it, or out_indices of the backbone.'
        )
    chosen = [given[i] for i in indices]
    taken = list(head.in_channels) if isinstance(head.in_channels, Sequence) else [head.in_channels]
    if taken != ([sum(chosen)] if head.input_transform == 'resize_concat' else chosen):
        raise _error(backbone, name, head.in_channels, chosen)


def _is_a(module: nn.Module | None, name: str) -> bool:
    """By name, since mmdet and mmsegmentation have an FPN each, and one of them may be absent."""
    return any(kind.__name__ == name for kind in type(module).__mro__)


def _error(backbone: MLPBackbone, name: str, taken: object, given: Sequence[int]) -> UserError:
    return UserError(
        f'{name}.in_channels is {taken}, but {type(backbone).__name__} gives {list(given)} channels there: change '
        'it, or arch and out_indices of the backbone.'
    )
