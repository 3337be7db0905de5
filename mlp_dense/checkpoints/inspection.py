"""Says what is in a checkpoint: its weights, the backbone they belong to, and what of them would load."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from .matching import fit, own_name
from .reading import container_of, dataset_meta_of, local_file, read_checkpoint, sha256_of, weights_of

MAX_WIDTH = 2**16  # a file that claims more channels, or a wider MLP, would only cost time
NO_PARAMETERS = ('.running_mean', '.running_var', '.num_batches_tracked', '.offset')


def describe(source: str | Path, families: Sequence[type[nn.Module]]) -> Iterator[tuple[str, str]]:
    """Pairs (topic, text) on a checkpoint file or address, whose backbone may be of one of the families.

    Raises:
        CheckpointError: the file is unusable.
    """
    path, checkpoint = local_file(source), read_checkpoint(source)
    weights, container = weights_of(checkpoint, source), container_of(checkpoint)
    yield 'file', f'{path}, {path.stat().st_size / 1e6:.1f} MB'
    yield 'sha256', sha256_of(path)
    if path.suffix.lower() == '.safetensors':
        container = None
        yield 'weights', 'safetensors'
    else:
        averaged = container == 'state_dict' and 'ema_state_dict' in checkpoint  # mmengine's EMAHook exchanges them
        text = f'under {container!r}{" (averaged; ema_state_dict holds the trained ones)" if averaged else ""}'
        yield 'weights', text if container else 'a plain state dict'
    if container and len(checkpoint) > 1:
        yield 'beside them', ', '.join(str(key) for key in checkpoint if key != container)
    parameters = sum(tensor.numel() for name, tensor in weights.items() if not name.endswith(NO_PARAMETERS))
    dtypes = Counter(str(tensor.dtype).removeprefix('torch.') for tensor in weights.values())
    kinds = ', '.join(f'{count} {dtype}' for dtype, count in dtypes.most_common())
    yield 'tensors', f'{len(weights)} ({kinds}), {parameters / 1e6:.2f} M parameters'
    if classes := dataset_meta_of(checkpoint, source).get('classes'):
        yield 'classes', f'{len(classes)}: {", ".join(classes[:5])}{", ..." if len(classes) > 5 else ""}'
    backbone, loads = recognise(weights, source, families)
    yield 'backbone', backbone
    if loads:
        yield 'as backbone', loads


def recognise(
    weights: Mapping[str, Tensor], source: str | Path, families: Sequence[type[nn.Module]]
) -> tuple[str, str]:
    """Which backbone of the families some weights belong to, and what its loader says to them."""
    inner = {key.removeprefix('backbone.'): weights[key] for key in weights if key.startswith('backbone.')} or weights
    where = '' if inner is weights else ' inside `backbone.`'
    best, found = (0, 0), ('none of this package', '')
    for cls in families:
        renamed = {own_name(key, cls.official_names): tensor for key, tensor in inner.items()}
        label, backbone = _backbone_like(cls, renamed)
        own = backbone.state_dict() if backbone else {}
        if (score := (len(own.keys() & renamed.keys()), -len(own))) > best:
            names = 'our' if any(key in own for key in inner) else 'official'
            try:
                loads = fit(backbone, weights, source)[1]
            except CheckpointError as error:
                loads = str(error)
            best, found = score, (f'{cls.__name__} {label}, {names} names{where}', loads)
    return found


def _backbone_like(cls: type[nn.Module], weights: Mapping[str | None, Tensor]) -> tuple[str, nn.Module | None]:
    """The arch and the backbone of a family, without values, that has as many stages, blocks and channels as some
    weights under our names; None if there is none."""
    blocks = defaultdict(set)
    for key in weights:
        if match := re.match(r'stages\.(\d+)\.blocks\.(\d+)\.', key or ''):
            blocks[int(match[1])].add(match[2])
    widths = {
        name: [_width(weights.get(f'stages.{i}.blocks.0.{name}.weight')) for i in range(len(blocks))]
        for name in ('norm1', 'channel_mixing.fc1')
    }
    if not blocks or not all(width and width <= MAX_WIDTH for each in widths.values() for width in each):
        return '', None
    sizes = dict(
        depths=tuple(len(blocks[i]) for i in range(len(blocks))),
        dims=tuple(widths['norm1']),
        mlp_ratios=tuple(hidden // dim for dim, hidden in zip(*widths.values(), strict=True)),
    )
    full = {name: {**cls.arch_defaults, **arch} for name, arch in cls.archs.items()}
    name = next((name for name in full if all(full[name][key][: len(blocks)] == sizes[key] for key in sizes)), None)
    try:
        with torch.device('meta'):
            backbone = cls(name or sizes, out_indices=range(len(blocks)))
    except (ValueError, RuntimeError, ArithmeticError):  # the family has no network of such sizes
        return '', None
    return name or f'of custom size ({", ".join(f"{key} {value}" for key, value in sizes.items())})', backbone


def _width(weight: Tensor | None) -> int:
    return weight.shape[0] if weight is not None and weight.ndim else 0
