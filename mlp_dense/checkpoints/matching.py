"""Matches the tensors of a checkpoint, under official or own names, with those of a backbone, loudly."""

import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from torch import Size, Tensor, nn

from ..errors import CheckpointError
from .reading import Checkpoint, below, split_backbone

SOURCE: ContextVar[str | Path] = ContextVar('loading', default='the given state dict')
"""What is being loaded."""


@contextmanager
def loading(source: str | Path) -> Iterator[None]:
    """Inside, what is loaded into a backbone comes from this file: for the log and for errors."""
    token = SOURCE.set(source)
    try:
        yield
    finally:
        SOURCE.reset(token)


FRESH = {'norms': 'output norms', 'pyramid': 'pyramid layers'}
"""Parts of a backbone that a checkpoint may lack: they keep their present values."""


class LeftOut(str):
    """Why a tensor of an official checkpoint is not loaded."""


def load_pretrained(backbone: nn.Module, source: str | Path, prefix: str | None = None) -> None:
    """Loads a file or an address, or what is below a prefix in it, into a backbone; logs one line that says what."""
    checkpoint = Checkpoint.read(source)
    if prefix:
        checkpoint = Checkpoint(source, None, below(prefix, checkpoint.weights))
    tensors, report = match_to_backbone(backbone, checkpoint)
    log(report)
    if wrong := checkpoint.not_finite:
        log(
            f'{source}: {len(wrong)} of its weights are not finite (NaN or infinity), first {wrong[0]}.',
            logging.WARNING,
        )
    backbone.load_state_dict(tensors)


def match_and_log(backbone: nn.Module, found: dict[str, Any]) -> dict[str, Tensor]:
    """What :func:`match_to_backbone` gives for a state dict. Its report is logged, unless names and shapes are the
    backbone's own."""
    own, checkpoint = backbone.state_dict(), Checkpoint(SOURCE.get(), None, found)
    if found.keys() == own.keys() and all(getattr(found[key], 'shape', None) == own[key].shape for key in own):
        return found
    tensors, report = match_to_backbone(backbone, checkpoint)
    log(report)
    return tensors


def match_to_backbone(backbone: nn.Module, checkpoint: Checkpoint) -> tuple[dict[str, Tensor], str]:
    """Renames and reshapes the tensors of a checkpoint so that they match a backbone's own exactly.

    Left out on purpose: what the family says (the classifier's head and norm), everything that belongs to stages or
    outputs that ``out_indices`` does not select, and everything outside ``backbone.`` in a whole model. Output norms
    and pyramid layers that the checkpoint lacks keep their present values.

    Returns:
        The new state dict of the backbone, and a line that says what was loaded and left out.

    Raises:
        CheckpointError: nothing matches, a shape differs, or a tensor is missing or left over without a reason.
    """
    own, name = backbone.state_dict(), type(backbone).__name__
    left_out: dict[str, int] = defaultdict(int)
    found, others = split_backbone(checkpoint.weights)
    if found:
        left_out['outside the backbone'] = len(others)
    found = found or others
    names = backbone.names_in(found, backbone.arch['depths'])
    matched, left_over, wrong_shape = {}, [], []
    for key, tensor in found.items():
        ours = our_name(key, names)
        if isinstance(ours, LeftOut):
            left_out[ours] += 1
        elif ours in own:
            if _without_ones(tensor.shape) == _without_ones(own[ours].shape):
                matched[ours] = tensor.reshape(own[ours].shape)
            else:
                wrong_shape.append(f'{key} {tuple(tensor.shape)} for {tuple(own[ours].shape)}')
        elif backbone.is_unbuilt(ours):
            left_out['stages and norms not selected by out_indices and out_norm'] += 1
        else:
            left_over.append(key)

    unmatched = [key for key in own if key not in matched]
    # Files of old versions do not count batches.
    missing = [key for key in unmatched if not may_be_fresh(key) and not key.endswith('.num_batches_tracked')]
    count = sum(not may_be_fresh(key) for key in matched)
    problems = summary({'of another shape': wrong_shape, 'missing': missing, 'left over': left_over})
    if problems or not count:
        arch = f'depths {tuple(backbone.arch["depths"])} and dims {tuple(backbone.arch["dims"])}'
        head = f'{checkpoint.source} does not fit {name} with {arch}: {count} of its tensors match'
        raise CheckpointError(f'{"; ".join([head, *problems])}. Is it of this family and arch?')

    report = [f'{name}: loaded {len(matched)} tensors from {checkpoint.source}']
    report += [f'left out {number} ({reason})' for reason, number in left_out.items() if number]
    for kind, what in FRESH.items():
        if fresh := {'.'.join(key.split('.')[:2]) for key in unmatched if key.startswith(f'{kind}.')}:
            report.append(f'{what} that start fresh: {", ".join(sorted(fresh))}')
    return {key: matched.get(key, value) for key, value in own.items()}, '; '.join(report)


def may_be_fresh(key: str) -> bool:
    return key.partition('.')[0] in FRESH


def summary(problems: Mapping[str, Sequence[str]]) -> list[str]:
    """For each kind of problem that there is, how many names and the first three of them."""
    found = {what: names for what, names in problems.items() if names}
    return [f'{len(n)} {what}: {", ".join(n[:3])}{", ..." if len(n) > 3 else ""}' for what, n in found.items()]


def our_name(key: str, official_names: Sequence[tuple[str, Any]]) -> str:
    """The name in this package of a tensor that may have its official name; a LeftOut if it is not loaded."""
    for pattern, replacement in official_names:
        if not isinstance(replacement, LeftOut):
            key = re.sub(pattern, replacement, key)
        elif re.search(pattern, key):
            return replacement
    return key


def _without_ones(shape: Size) -> tuple[int, ...]:
    """A 1x1 convolution's (O, I, 1, 1) and a linear layer's (O, I) are the same."""
    return tuple(shape[:2]) if len(shape) == 4 and shape[2:] == (1, 1) else tuple(shape)


def log(text: str, level: int = logging.INFO) -> None:
    try:
        from mmengine.logging import MMLogger
    except ImportError:  # a backbone alone does not need mmengine
        logger = logging.getLogger('mlp_dense')
    else:
        logger = MMLogger.get_current_instance()
    logger.log(level, text, extra=dict(console=True))
