"""Settings that a checkpoint records: a run that continues or uses it with others gets a warning."""

import logging
import re
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..checkpoints.reading import Checkpoint
from ..config.config_file import setting, walk
from ..config.scaling import largest_scale
from ..datasets.layout import dataset_meta
from ..errors import CheckpointError, some

KEY = 'trained_with'
"""Key in the ``meta`` of a checkpoint."""
VAL_SCALE, TEST_SCALE, ORIGINAL = 'size of validation images', 'size of test images', 'original size'


def trained_with(cfg: Config) -> dict[str, str]:
    """Return the settings of a training run by their names in messages."""
    values = {
        'epochs': setting(cfg, 'train_cfg.max_epochs'),
        'iterations': setting(cfg, 'train_cfg.max_iters'),
        'batch size': setting(cfg, 'train_dataloader.batch_size'),
        'size of training images': _scale(cfg, 'train'),
        VAL_SCALE: _scale(cfg, 'val'),
        TEST_SCALE: _scale(cfg, 'test'),
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def warn_if_resumed_with_others(cfg: Config, checkpoint: Checkpoint) -> None:
    """Log the settings of a config that differ from those of the interrupted run."""
    before, now = _recorded(checkpoint), trained_with(cfg)
    names = [name for name in now if name != TEST_SCALE and before.get(name, now[name]) != now[name]]
    if names:
        changes = ', '.join(f'{name} {now[name]} instead of {before[name]}' for name in names)
        remedy = 'if this is not intended, repeat all options of the first command, or use the config in the work dir'
        _warn(f'Resumed with other settings than the interrupted run: {changes}; {remedy}.')


def warn_if_used_with_others(cfg: Config, checkpoint: Checkpoint) -> None:
    """Log if a trained model is used for other classes or another image size than it was trained with."""
    recorded, now = _recorded(checkpoint), _scale(cfg, 'test')
    before = recorded.get(VAL_SCALE)
    if before and now and now not in (before, recorded.get(TEST_SCALE)):
        option = '' if before == ORIGINAL else f'pass --img-scale {before.replace("x", " ")}, or '
        text = f'{checkpoint.source} was validated on images of {before}, and this config uses {now}'
        _warn(f'{text}; {option}use the config in the work dir of the training run.')
    loader = cfg.get('test_dataloader')
    classes, configured = _classes(checkpoint), (dataset_meta(loader.dataset).get('classes') or ()) if loader else ()
    if len(classes) == len(configured) and classes != (*configured,):
        pairs = [f'{a!r} is {b!r}' for a, b in zip(classes, configured, strict=True) if a != b]
        _warn(f'{checkpoint.source} has other classes than this config: {some(pairs)}; use the config of its run.')


def _scale(cfg: Config, loader: str) -> str | None:
    """Return the long and short side to which a loader resizes images, None if it is absent or uses several sizes."""
    nodes = cfg.get(f'{loader}_dataloader') or {}
    types = {node.get('type'): node for _, _, _, node in walk(nodes) if isinstance(node, Mapping)}
    if not nodes or 'TestTimeAug' in types:
        return None
    if classifier := types.get('mlp_dense.TimmTransform'):
        return f'{classifier.get("input_size", 224)}'
    scale = largest_scale(cfg, loader)
    return f'{scale[0]}x{scale[1]}' if scale else ORIGINAL


def _recorded(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the settings in a checkpoint, which may be of anybody: only short texts without control characters."""
    meta: Any = checkpoint.content.get('meta')
    recorded = meta.get(KEY) if isinstance(meta, Mapping) else None
    items = recorded.items() if isinstance(recorded, Mapping) else ()
    return {k: v for k, v in items if isinstance(k, str) and isinstance(v, str) and re.fullmatch(r'[\w ]{1,40}', v)}


def _classes(checkpoint: Checkpoint) -> tuple[str, ...]:
    try:
        return tuple(checkpoint.dataset_meta.get('classes') or ())
    except (CheckpointError, TypeError, ValueError, RuntimeError):  # no list of names; predict reports it
        return ()


def _warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)
