"""Says what is in a checkpoint: its weights, the backbone they belong to, and what of them would load."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from .files import sha256_of
from .matching import match_to_backbone, may_be_fresh, our_name, summary
from .reading import Checkpoint, split_backbone

MAX_WIDTH = 2**16  # a file that claims more channels, or a wider MLP, would only cost time
BUFFERS = ('.running_mean', '.running_var', '.num_batches_tracked')


def describe(checkpoint: Checkpoint, families: Sequence[type[nn.Module]]) -> Iterator[tuple[str, str]]:
    """Pairs (topic, text) on a file, whose backbone may be of one of the families. CheckpointError: it is unusable."""
    weights, container = checkpoint.weights, checkpoint.container
    yield 'file', f'{checkpoint.path}, {checkpoint.path.stat().st_size / 1e6:.1f} MB'
    yield 'sha256', sha256_of(checkpoint.path)
    form = f'under {container!r}' if container else 'a plain state dict'
    averaged = ' (averaged; ema_state_dict holds the trained ones)' if checkpoint.averaged else ''
    yield 'weights', 'safetensors' if checkpoint.is_safetensors else form + averaged
    if container and len(checkpoint.content) > 1 and not checkpoint.is_safetensors:
        yield 'beside them', ', '.join(str(key) for key in checkpoint.content if key != container)
    meta = checkpoint.content.get('meta')
    if isinstance(meta, Mapping) and isinstance(run := meta.get('run_id'), str):
        yield 'run', run
    parameters = sum(tensor.numel() for name, tensor in weights.items() if not name.endswith(BUFFERS))
    dtypes = Counter(str(tensor.dtype).removeprefix('torch.') for tensor in weights.values())
    kinds = ', '.join(f'{count} {dtype}' for dtype, count in dtypes.most_common())
    yield 'tensors', f'{len(weights)} ({kinds}), {parameters / 1e6:.2f} M parameters'
    if wrong := checkpoint.not_finite:
        yield 'not finite', f'{len(wrong)} of them hold NaN or infinity, first {wrong[0]}'
    if classes := checkpoint.dataset_meta.get('classes'):
        yield 'classes', f'{len(classes)}: {", ".join(classes[:5])}{", ..." if len(classes) > 5 else ""}'
    backbone, loads = recognise(checkpoint, families)
    yield 'backbone', backbone
    if loads:
        yield 'as backbone', loads


def recognise(checkpoint: Checkpoint, families: Sequence[type[nn.Module]]) -> tuple[str, str]:
    """Which backbone of the families the weights belong to, and what its loader says to them."""
    inner, others = split_backbone(checkpoint.weights)
    where = ' inside `backbone.`' if inner else ''
    best, found = (0, 0), ('none of this package', '')
    for cls in families:
        names = cls.names_in(inner or others)
        renamed = {our_name(key, names): tensor for key, tensor in (inner or others).items()}
        label, backbone = _backbone_like(cls, renamed)
        own = backbone.state_dict() if backbone else {}
        if (score := (len(own.keys() & renamed.keys()), -len(own))) > best:
            names = 'our' if any(key in own and not may_be_fresh(key) for key in inner or others) else 'official'
            try:
                loads = match_to_backbone(backbone, checkpoint)[1]
            except CheckpointError as error:
                loads = str(error)
            best, found = score, (f'{cls.__name__} {label}, {names} names{where}', loads)
    return found


def _backbone_like(cls: type[nn.Module], weights: Mapping[str, Tensor]) -> tuple[str, nn.Module | None]:
    """The arch of a family, and the backbone without values, that some weights under our names belong to, or None."""
    sizes = cls.arch_like(weights)
    if not sizes or max(dim * max(1, r) for dim, r in zip(sizes['dims'], sizes['mlp_ratios'], strict=True)) > MAX_WIDTH:
        return '', None
    depth = len(sizes['depths'])
    full = {name: {**cls.arch_defaults, **arch} for name, arch in cls.archs.items()}
    like = _first_stages({**cls.arch_defaults, **sizes}, depth)
    name = next((name for name in full if _first_stages(full[name], depth) == like), None)
    try:
        with torch.device('meta'):
            backbone = cls(name or sizes, out_indices=range(depth))
    except (ValueError, RuntimeError, ArithmeticError):  # the family has no network of such sizes
        return '', None
    usual = _first_stages(cls.arch_defaults, depth)
    own = {key: value for key, value in sizes.items() if value != usual.get(key)}
    return name or f'of custom size ({", ".join(f"{key} {value}" for key, value in own.items())})', backbone


def _first_stages(arch: Mapping[str, Any], depth: int) -> dict[str, Any]:
    return {key: value[:depth] if isinstance(value, tuple) else value for key, value in arch.items()}


def describe_fit(model: Any, checkpoint: Checkpoint) -> str:
    """Return a line on the tensors of a checkpoint that load into a whole model, and on those that do not."""
    expected, tensors, problems, num_fitting = model.state_dict(), checkpoint.weights, [], 0
    total, backbone = len(expected), getattr(model, 'backbone', None)
    in_backbone, others = split_backbone(tensors)
    try:
        if hasattr(backbone, 'matched'):  # the backbone of a classifier has its own matching, and is the whole model
            expected, tensors = backbone.state_dict(), {}
            tensors = backbone.matched(checkpoint, backbone.in_chans)[0]
        elif in_backbone and hasattr(backbone, 'names_in'):
            expected, tensors = split_backbone(expected)[1], others
            num_fitting = len(match_to_backbone(backbone, checkpoint)[0])
    except CheckpointError as error:
        problems.append(str(error).rstrip('.'))
    shared = expected.keys() & tensors.keys()
    misfits = [key for key in expected if key in shared and tensors[key].shape != expected[key].shape]
    problems += summary(
        {
            'missing': [key for key in expected if key not in shared],
            'unexpected': [key for key in tensors if key not in shared],
            'of another shape': [f'{k} {tuple(tensors[k].shape)} for {tuple(expected[k].shape)}' for k in misfits],
        }
    )
    num_fitting += len(shared) - len(misfits)
    return '; '.join(
        [f'{"does not load" if problems else "loads"}: {num_fitting} of its {total} tensors fit', *problems]
    )
