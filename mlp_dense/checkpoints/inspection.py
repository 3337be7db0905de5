"""Description of a checkpoint: its weights, and the backbone that they belong to."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from .files import is_safetensors, sha256_of
from .matching import STEM, match_to_backbone, may_be_fresh, our_name
from .reading import Checkpoint, split_backbone

MAX_WIDTH = 2**16  # wider networks do not exist, and building one from a forged file would take long
BUFFERS = ('.running_mean', '.running_var', '.num_batches_tracked')


def describe(checkpoint: Checkpoint, families: Sequence[type[nn.Module]]) -> Iterator[tuple[str, str]]:
    """Yield pairs (topic, text) that describe a checkpoint file, whose backbone may belong to one of the families."""
    weights, container, path = checkpoint.weights, checkpoint.container, checkpoint.path
    assert path
    yield 'file', f'{path}, {path.stat().st_size / 1e6:.1f} MB'
    yield 'sha256', sha256_of(path)
    location = f'under {container!r}' if container else 'a bare state dict'
    averaged = ' (averaged; ema_state_dict holds the trained ones)' if checkpoint.averaged else ''
    yield 'weights', 'safetensors' if is_safetensors(path) else location + averaged
    if container and len(checkpoint.content) > 1 and not is_safetensors(path):
        yield 'also holds', ', '.join(str(key) for key in checkpoint.content if key != container)
    meta = checkpoint.content.get('meta')
    if isinstance(meta, Mapping) and isinstance(run := meta.get('run_id'), str):
        yield 'run', run
    parameters = sum(tensor.numel() for name, tensor in weights.items() if not name.endswith(BUFFERS))
    dtypes = Counter(str(tensor.dtype).removeprefix('torch.') for tensor in weights.values())
    counts = ', '.join(f'{count} {dtype}' for dtype, count in dtypes.most_common())
    yield 'tensors', f'{len(weights)} ({counts}), {parameters / 1e6:.2f} M parameters'
    if not_finite := checkpoint.not_finite:
        yield 'not finite', f'{len(not_finite)} of them hold NaN or infinity, first {not_finite[0]}'
    if classes := checkpoint.dataset_meta.get('classes'):
        yield 'classes', f'{len(classes)}: {", ".join(classes[:5])}{", ..." if len(classes) > 5 else ""}'
    backbone, loads = recognise(checkpoint, families)
    yield 'backbone', backbone
    if loads:
        yield 'as backbone', loads


def recognise(checkpoint: Checkpoint, families: Sequence[Any]) -> tuple[str, str]:
    """Return the backbone that the weights belong to, and the report or the error of its loader."""
    inner, others = split_backbone(checkpoint.weights)
    location, weights = (' inside `backbone.`', inner) if inner else ('', others)
    best_score, best = (0, 0), ('not of this package', '')
    for family in families:
        official_names = family.names_in(weights)
        renamed = {our_name(key, official_names): tensor for key, tensor in weights.items()}
        label, backbone = _backbone_like(family, renamed)
        if backbone is None:
            continue
        parameters = backbone.state_dict()
        if (score := (len(parameters.keys() & renamed.keys()), -len(parameters))) > best_score:
            is_ours = any(key in parameters and not may_be_fresh(key) for key in weights)
            names = 'our' if is_ours else 'official'
            try:
                loads = match_to_backbone(backbone, checkpoint)[1]
            except CheckpointError as error:
                loads = str(error)
            best_score, best = score, (f'{family.__name__} {label}, {names} names{location}', loads)
    return best


def _backbone_like(family: Any, weights: Mapping[str, Tensor]) -> tuple[str, nn.Module | None]:
    """Return the arch of a family that fits weights under our names, and its backbone on the meta device."""
    arch = family.arch_like(weights)
    if not arch or max(dim * max(1, r) for dim, r in zip(arch['dims'], arch['mlp_ratios'], strict=True)) > MAX_WIDTH:
        return '', None
    depth = len(arch['depths'])
    bands = weights[STEM].shape[1] if STEM in weights and weights[STEM].ndim == 4 else 3

    def complete(fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return all fields of an arch, for the stages that the weights have."""
        arch = {**family.arch_defaults, **fields}
        return {key: value[:depth] if isinstance(value, tuple) else value for key, value in arch.items()}

    name = next((name for name, fields in family.archs.items() if complete(fields) == complete(arch)), None)
    try:
        with torch.device('meta'):
            backbone = family(name or arch, bands, range(depth))
    except (ValueError, RuntimeError, ArithmeticError):  # the family does not have a network of this size
        return '', None
    defaults = complete({})
    fields = ', '.join(f'{key} {value}' for key, value in arch.items() if value != defaults.get(key))
    label = name or f'of custom size ({fields})'
    return label if bands == 3 else f'{label} for {bands} bands', backbone
