"""Puts the tensors of a checkpoint into models, loudly: nothing is left out without a word.

A backbone takes its tensors under the official names or its own, with or without ``module.`` and ``backbone.`` before
them.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

from ..errors import CheckpointError
from .reading import read_checkpoint, weights_of


class LeftOut(str):
    """Why a tensor of an official checkpoint is not loaded."""


def load_pretrained(backbone: torch.nn.Module, source: str | Path, prefix: str | None = None) -> None:
    """Loads pretrained weights into a backbone of this package; logs one line that says what was loaded.

    Args:
        source: a file or an address, see :func:`read_checkpoint`.
        prefix: take only the tensors whose names begin so (``backbone.`` is found without being asked for).

    Raises:
        CheckpointError: the file is unusable or does not fit (see :func:`match_and_log`).
    """
    weights = weights_of(read_checkpoint(source), source)
    if prefix:
        prefix = prefix.rstrip('.') + '.'
        weights = {key[len(prefix) :]: tensor for key, tensor in weights.items() if key.startswith(prefix)}
    backbone.load_state_dict(match_and_log(backbone, weights, source))


def match_and_log(backbone: torch.nn.Module, found: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """What :func:`fit` gives; its report goes to the log."""
    own = backbone.state_dict()
    if found.keys() == own.keys() and all(found[key].shape == own[key].shape for key in own):
        return dict(found)
    tensors, report = fit(backbone, found, source)
    print_log(report, logger='current')
    return tensors


def fit(backbone: torch.nn.Module, found: Mapping[str, Any], source: str | Path) -> tuple[dict[str, Tensor], str]:
    """Renames and reshapes the tensors of a state dict for a backbone, so that they match its own exactly.

    Left out on purpose: the classifier's head and norm, CycleFC's constant offsets, everything that belongs to stages
    or output norms that ``out_indices`` does not select, and everything outside ``backbone.`` in a whole model. Output
    norms that the source lacks keep their present values.

    Args:
        backbone: an :class:`~mlp_dense.backbones.base.MLPBackbone`.
        found: names to tensors; a whole checkpoint is accepted too.
        source: what to call it in the log and in errors.

    Returns:
        A dict with exactly the keys of ``backbone.state_dict()``, and a line that says what was loaded and left out.

    Raises:
        CheckpointError: nothing matches, a shape differs, or a tensor is missing or left over without a reason.
    """
    own = backbone.state_dict()
    name = type(backbone).__name__
    if not all(isinstance(value, Tensor) for value in found.values()):
        found = weights_of(found, source)
    left_out: dict[str, int] = defaultdict(int)
    if any(key.startswith('backbone.') for key in found):
        left_out['outside the backbone'] = sum(not key.startswith('backbone.') for key in found)
        found = {key.removeprefix('backbone.'): value for key, value in found.items() if key.startswith('backbone.')}

    fitted, left_over, wrong_shape = {}, [], []
    for key, tensor in found.items():
        own_key = own_name(key, backbone.official_names)
        if isinstance(own_key, LeftOut):
            left_out[own_key] += 1
        elif own_key in own:
            if _without_ones(tensor.shape) == _without_ones(own[own_key].shape):  # a 1x1 convolution or a linear map
                fitted[own_key] = tensor.reshape(own[own_key].shape)
            else:
                wrong_shape.append(f'{key} {tuple(tensor.shape)} for {tuple(own[own_key].shape)}')
        elif backbone.is_unbuilt(own_key):
            left_out['stages and norms not selected by out_indices and out_norm'] += 1
        else:
            left_over.append(key)

    fresh = {key for key in own if key not in fitted and key.startswith('norms.')}
    uncounted = {
        key for key in own if key not in fitted and key.endswith('.num_batches_tracked')
    }  # absent in old files
    missing = [key for key in own if key not in fitted and key not in fresh | uncounted]

    matched = sum(not key.startswith('norms.') for key in fitted)
    problems = counted({'of another shape': wrong_shape, 'missing': missing, 'left over': left_over})
    if problems or not matched:
        head = f'{source} does not fit {name} with {_describe(backbone)}: {matched} of its tensors match'
        raise CheckpointError(f'{"; ".join([head, *problems])}. Is it of this family and arch?')

    report = [f'{name}: loaded {len(fitted)} tensors from {source}']
    report += [f'left out {count} ({what})' for what, count in left_out.items() if count]
    if fresh:
        report.append(f'output norms that start fresh: {", ".join(sorted({key.rpartition(".")[0] for key in fresh}))}')
    return {key: fitted.get(key, value) for key, value in own.items()}, '; '.join(report)


def counted(problems: Mapping[str, Sequence[str]]) -> list[str]:
    """For each kind of problem that there is, how many names and the first three of them."""
    return [
        f'{len(names)} {what}: {", ".join(names[:3])}{", ..." if len(names) > 3 else ""}'
        for what, names in problems.items()
        if names
    ]


def own_name(key: str, official_names: Sequence[tuple[str, Any]]) -> str | None:
    """The name in this package of a tensor that may have its official name; None if it is left out on purpose."""
    for pattern, replacement in official_names:
        if isinstance(replacement, LeftOut):
            if re.search(pattern, key):
                return replacement
        else:
            key = re.sub(pattern, replacement, key)
    return key


def _not_built(key: str, backbone: torch.nn.Module) -> bool:
    if match := re.match(r'stages\.(\d+)\.', key):
        return len(backbone.stages) <= int(match[1]) < len(backbone.arch['depths'])
    match = re.match(r'norms\.(\d+)\.', key)
    return bool(match) and int(match[1]) < len(backbone.arch['depths'])


def _without_ones(shape: torch.Size) -> tuple[int, ...]:
    """(O, I, 1, 1) and (O, I) are the same linear map."""
    return tuple(shape[:2]) if len(shape) == 4 and shape[2:] == (1, 1) else tuple(shape)


def _describe(backbone: torch.nn.Module) -> str:
    return f'depths {tuple(backbone.arch["depths"])} and dims {tuple(backbone.arch["dims"])}'
