"""Check that the channels of a backbone fit the neck and the heads."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from ..backbones.base import MLPBackbone
from ..errors import UserError


def check_channels(model: nn.Module) -> None:
    """Raise UserError if a backbone of this package does not fit its FPN, or without a neck its decode heads."""
    for module in model.modules():
        backbone, neck = getattr(module, 'backbone', None), getattr(module, 'neck', None)
        if not isinstance(backbone, MLPBackbone):
            continue
        if _is_a(neck, 'FPN') and tuple(neck.in_channels) != backbone.out_channels:
            raise _error(backbone, 'model.neck', neck.in_channels, backbone.out_channels)
        for name in ('decode_head', 'auxiliary_head') if neck is None else ():
            heads = getattr(module, name, None)
            for head in heads if isinstance(heads, nn.ModuleList) else [heads]:
                if _is_a(head, 'BaseDecodeHead'):
                    _check_head(backbone, head, f'model.{name}')


def _check_head(backbone: MLPBackbone, head: Any, name: str) -> None:
    channels = backbone.out_channels
    indices = head.in_index if isinstance(head.in_index, Sequence) else [head.in_index]
    if not all(-len(channels) <= i < len(channels) for i in indices):
        count = f'{type(backbone).__name__} returns {len(channels)} feature maps'
        remedy = 'change in_index, or out_indices of the backbone'
        raise UserError(f'{name}.in_index is {head.in_index}, but {count}; {remedy}.')
    selected = [channels[i] for i in indices]
    expected = list(head.in_channels) if isinstance(head.in_channels, Sequence) else [head.in_channels]
    if expected != ([sum(selected)] if head.input_transform == 'resize_concat' else selected):
        raise _error(backbone, name, head.in_channels, selected)


def _is_a(module: nn.Module | None, name: str) -> bool:
    """Whether a module is of a class of this name. mmdet and mmsegmentation both have an FPN, and may be absent."""
    return any(cls.__name__ == name for cls in type(module).__mro__)


def _error(backbone: MLPBackbone, name: str, expected: object, channels: Sequence[int]) -> UserError:
    problem = f'{name}.in_channels is {expected}, but {type(backbone).__name__} returns {list(channels)} channels'
    return UserError(f'{problem}; change in_channels, or arch and out_indices of the backbone.')
