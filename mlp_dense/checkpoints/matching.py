"""Matching of a checkpoint's tensors with those of a backbone, under official names or ours.

Every tensor is accounted for: it is loaded, left out for a reason that is logged, or an error.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from torch import Size, Tensor, nn

from ..errors import CheckpointError, some
from .reading import Checkpoint, below, split_backbone

SOURCE: ContextVar[str | Path] = ContextVar('loading', default='the given state dict')
"""Name of the checkpoint that is being loaded."""
INFLATES: ContextVar[bool] = ContextVar('inflates', default=False)
"""Whether the first convolution of RGB images may be converted to another number of bands."""
STEM = 'stem.conv.weight'
FRESH = {'norms': 'output norms', 'pyramid': 'pyramid layers'}
"""Modules of a backbone that a checkpoint may lack. They keep their present values."""


class LeftOut(str):
    """Reason why a tensor of an official checkpoint is not loaded."""


@contextmanager
def loading(source: str | Path, inflates: bool = False) -> Iterator[None]:
    """Name the source of the state dicts that are loaded inside, for the log and for errors.

    With `inflates` the first convolution is converted to other bands, as at the beginning of a training.
    """
    tokens = SOURCE.set(source), INFLATES.set(inflates)
    try:
        yield
    finally:
        SOURCE.reset(tokens[0])
        INFLATES.reset(tokens[1])


def load_pretrained(backbone: nn.Module, source: str | Path, prefix: str | None = None) -> None:
    """Load a file or URL, or the tensors below a prefix in it, into a backbone, and log the result in one line."""
    checkpoint = Checkpoint.read(source)
    if prefix:
        checkpoint = Checkpoint(source, None, below(prefix, checkpoint.weights))
    tensors, report = match_to_backbone(backbone, checkpoint, inflates=True)
    log(report)
    warn_if_not_finite(checkpoint)
    backbone.load_state_dict(tensors)


def warn_if_not_finite(checkpoint: Checkpoint) -> None:
    """Log a warning if weights of a checkpoint contain NaN or infinity."""
    if names := checkpoint.not_finite:
        problem = f'{len(names)} of its weights are not finite (NaN or infinity), first {names[0]}'
        log(f'{checkpoint.source}: {problem}.', logging.WARNING)


def match_and_log(backbone: nn.Module, state_dict: dict[str, Any]) -> dict[str, Tensor]:
    """Return a state dict under the names of a backbone, and log the report if names or shapes change."""
    shapes = {key: getattr(value, 'shape', None) for key, value in state_dict.items()}
    if shapes == {key: value.shape for key, value in backbone.state_dict().items()}:
        return state_dict
    tensors, report = match_to_backbone(backbone, Checkpoint(SOURCE.get(), None, state_dict), INFLATES.get())
    log(report)
    return tensors


def match_to_backbone(backbone: Any, checkpoint: Checkpoint, inflates: bool = False) -> tuple[dict[str, Tensor], str]:
    """Rename and reshape the tensors of a checkpoint so that they fit a backbone exactly.

    Left out are tensors for which the family states a reason (the classifier's head and norm), those of stages and
    outputs that ``out_indices`` does not select, and those outside ``backbone.`` in a complete model. A CheckpointError
    is raised if nothing matches, a shape differs, or a tensor is missing or left over without a reason.

    With `inflates`, the first convolution may be for RGB images, and is converted by :func:`inflated`.

    Returns:
        The new state dict of the backbone, and a line that reports what was loaded and left out.
    """
    ours, family = backbone.state_dict(), type(backbone).__name__
    left_out: dict[str, int] = defaultdict(int)
    weights, others = split_backbone(checkpoint.weights)
    if weights:
        left_out['outside the backbone'] = len(others)
    weights = weights or others
    official_names = backbone.names_in(weights, backbone.arch['depths'])
    matched: dict[str, Tensor] = {}
    unexpected, other_shape, bands = [], [], ''
    for key, tensor in weights.items():
        name = our_name(key, official_names)
        if isinstance(name, LeftOut):
            left_out[name] += 1
        elif name in ours:
            # a linear layer (O, I) may be a 1x1 convolution (O, I, 1, 1)
            if _without_ones(tensor.shape) == _without_ones(ours[name].shape):
                matched[name] = tensor.reshape(ours[name].shape)
            elif inflates and name == STEM and is_rgb(tensor, ours[name]):
                channels = ours[name].shape[1]
                matched[name] = inflated(tensor, channels)
                bands = f'each of its {channels} filters is the mean of those of R, G and B times 3/{channels}'
            else:
                other_shape.append(f'{key} {tuple(tensor.shape)} for {tuple(ours[name].shape)}')
        elif backbone.is_unbuilt(name):
            left_out['stages and norms not selected by out_indices and out_norm'] += 1
        else:
            unexpected.append(key)
    unmatched = [key for key in ours if key not in matched]
    # Old versions of PyTorch did not save num_batches_tracked.
    missing = [key for key in unmatched if not may_be_fresh(key) and not key.endswith('.num_batches_tracked')]
    count = sum(not may_be_fresh(key) for key in matched)
    named = {'of another shape': other_shape, 'missing': missing, 'unexpected': unexpected}
    problems = [f'{len(names)} {problem}: {some(names)}' for problem, names in named.items() if names]
    if problems or not count:
        arch = f'depths {tuple(backbone.arch["depths"])} and dims {tuple(backbone.arch["dims"])}'
        head = f'{checkpoint.source} does not fit {family} with {arch}: {count} of its tensors match'
        raise CheckpointError(f'{"; ".join([head, *problems])}; use a checkpoint of this family and arch.')
    report = [f'{family}: loaded {len(matched)} tensors from {checkpoint.source}']
    report += [f'converted the first convolution from RGB: {bands}'] if bands else []
    report += [f'left out {number} ({reason})' for reason, number in left_out.items() if number]
    for module, description in FRESH.items():
        if fresh := {'.'.join(key.split('.')[:2]) for key in unmatched if key.startswith(f'{module}.')}:
            report.append(f'{description} with random weights: {", ".join(sorted(fresh))}')
    return {key: matched.get(key, value) for key, value in ours.items()}, '; '.join(report)


def is_rgb(weight: Tensor, like: Tensor) -> bool:
    """Whether a convolution of RGB images differs from another one in the number of its input channels alone."""
    return weight.ndim == 4 and weight.shape[1] == 3 and weight[:, :1].shape == like[:, :1].shape


def inflated(weight: Tensor, channels: int) -> Tensor:
    """Convert a convolution of RGB images to other channels, with an equal response to images of equal channels."""
    return weight.mean(1, keepdim=True).repeat(1, channels, 1, 1) * (3 / channels)


def may_be_fresh(key: str) -> bool:
    """Whether a checkpoint may lack a tensor of a backbone."""
    return key.partition('.')[0] in FRESH


def our_name(key: str, official_names: Sequence[tuple[str, Any]]) -> str:
    """Return our name of a tensor that may have its official name, or a LeftOut if it is not loaded."""
    for pattern, replacement in official_names:
        if not isinstance(replacement, LeftOut):
            key = re.sub(pattern, replacement, key)
        elif re.search(pattern, key):
            return replacement
    return key


def _without_ones(shape: Size) -> tuple[int, ...]:
    return tuple(shape[:2]) if len(shape) == 4 and shape[2:] == (1, 1) else tuple(shape)


def log(text: str, level: int = logging.INFO) -> None:
    """Log a line that the console shows, with mmengine's logger if mmengine is installed."""
    try:
        from mmengine.logging import MMLogger
    except ImportError:  # the backbones alone do not need mmengine
        logger = logging.getLogger('mlp_dense')
    else:
        logger = MMLogger.get_current_instance()
    logger.log(level, text, extra=dict(console=True))
