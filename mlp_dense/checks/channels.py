"""Check that the channels of a backbone fit the neck or the heads."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from ..backbones.base import MLPBackbone
from ..errors import UserError

NECKS = ('mmdet.models.necks.', 'mmseg.models.necks.')
"""Modules with necks whose ``in_channels`` are compared. Those of other projects may scale it or select maps."""

LAST_MAP = ('CTResNetNeck', 'DilatedEncoder')
"""Necks of mmdet that use only the last map."""


def check_channels(model: nn.Module) -> None:
    """Raise UserError if a backbone of this package does not fit its neck, or without a neck its heads."""
    for module in model.modules():
        backbone = getattr(module, 'backbone', None)
        if isinstance(backbone, MLPBackbone):
            for path, reader in _readers(module):
                in_channels = _in_channels(reader)
                if in_channels is not None and not _fits(reader, in_channels, list(backbone.out_channels)):
                    raise _error(backbone, f'model.{path}.in_channels is {in_channels}{_selection(reader)}')


def _readers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the neck, the first of several necks, or without a neck the heads, each with its path."""
    neck = getattr(model, 'neck', None)
    if neck is not None:
        yield ('neck.0', neck[0]) if isinstance(neck, nn.Sequential) else ('neck', neck)
        return
    for name, child in model.named_children():
        heads = (
            {f'{name}.{i}': head for i, head in enumerate(child)} if isinstance(child, nn.ModuleList) else {name: child}
        )
        for path, head in heads.items():
            if hasattr(head, 'kernel_generate_head'):  # K-Net
                yield f'{path}.kernel_generate_head', head.kernel_generate_head
            else:
                yield path, head


def _in_channels(reader: Any) -> Any:
    """Return the ``in_channels`` of a neck or head, None if it is not known what they are compared with."""
    if _is_a(reader, 'ChannelMapper'):
        return [conv.in_channels for conv in reader.convs]
    if _is_a(reader, 'CTResNetNeck'):
        return reader.deconv_layers[0].in_channels
    decoder = getattr(reader, 'pixel_decoder', None)  # of MaskFormer and Mask2Former
    if _is_a(decoder, 'MSDeformAttnPixelDecoder'):
        return [conv.in_channels for conv in reversed([*decoder.input_convs, *decoder.lateral_convs])]
    owner = next(cls for cls in type(reader).__mro__ if 'forward' in vars(cls))  # a project may select maps in its own
    is_neck = owner.__module__.startswith(NECKS)
    is_head = _is_a(reader, 'BaseDenseHead') or (_is_a(reader, 'BaseDecodeHead') and hasattr(reader, 'in_index'))
    return getattr(decoder or reader, 'in_channels', None) if is_neck or is_head else None


def _fits(reader: Any, in_channels: Any, channels: list[int]) -> bool:
    if _is_a(reader, 'BaseDecodeHead'):
        indices, expected = (
            list(setting) if isinstance(setting, Sequence) else [setting] for setting in (reader.in_index, in_channels)
        )
        selected = [channels[i] for i in indices if -len(channels) <= i < len(channels)]
        merged = [sum(selected)] if reader.input_transform == 'resize_concat' else selected
        return len(selected) == len(indices) and merged == expected
    if isinstance(in_channels, Sequence):
        return list(in_channels) == (channels[::-1] if _is_a(reader, 'YOLOV3Neck') else channels)
    return set(channels[-1:] if _is_a(reader, *LAST_MAP) else channels) == {in_channels}


def _selection(reader: Any) -> str:
    """Return the maps that a neck or head uses, if these are not all in their order."""
    if _is_a(reader, 'BaseDecodeHead'):
        return f' at in_index {reader.in_index}'
    return ', from the last map to the first' if _is_a(reader, 'YOLOV3Neck') else ''


def _is_a(module: nn.Module | None, *names: str) -> bool:
    """Whether a module is of a class of these names. mmdet and mmsegmentation may be absent."""
    return any(cls.__name__ in names for cls in type(module).__mro__)


def _error(backbone: MLPBackbone, problem: str) -> UserError:
    returned = f'{type(backbone).__name__} returns {list(backbone.out_channels)} channels'
    return UserError(f'{problem}, but {returned}; change it, or arch and out_indices of the backbone.')
