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
        channels = list(backbone.out_channels)
        if _is_a(neck, 'FPN') and list(neck.in_channels) != channels:
            raise _error(backbone, f'model.neck.in_channels is {neck.in_channels}')
        for name in ('decode_head', 'auxiliary_head') if neck is None else ():
            heads = getattr(module, name, None)
            for head in heads if isinstance(heads, nn.ModuleList) else [heads]:
                if _is_a(head, 'BaseDecodeHead') and not _fits(head, channels):
                    problem = f'model.{name}.in_channels is {head.in_channels} at in_index {head.in_index}'
                    raise _error(backbone, problem)


def _fits(head: Any, channels: list[int]) -> bool:
    settings = (head.in_index, head.in_channels)
    indices, expected = (list(value) if isinstance(value, Sequence) else [value] for value in settings)
    selected = [channels[i] for i in indices if -len(channels) <= i < len(channels)]
    merged = [sum(selected)] if head.input_transform == 'resize_concat' else selected
    return len(selected) == len(indices) and merged == expected


def _is_a(module: nn.Module | None, name: str) -> bool:
    """Whether a module is of a class of this name. mmdet and mmsegmentation both have an FPN, and may be absent."""
    return any(cls.__name__ == name for cls in type(module).__mro__)


def _error(backbone: MLPBackbone, problem: str) -> UserError:
    returned = f'{type(backbone).__name__} returns {list(backbone.out_channels)} channels'
    return UserError(f'{problem}, but {returned}; change it, or arch and out_indices of the backbone.')
