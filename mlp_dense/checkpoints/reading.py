"""Checkpoint files, read safely: no code in a file is ever run.

Files understood: safetensors; ``{'state_dict': ...}`` (OpenMMLab, official dense models), ``{'model': ...}`` and
``{'model_ema': ...}`` (official ImageNet models) and plain state dicts, as PyTorch saves them.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import CheckpointError
from .files import is_safetensors, local_file, read_file

CONTAINERS = ('state_dict', 'model', 'model_ema', 'ema_state_dict')
"""Keys under which a file may hold its weights, in the order in which they are looked for."""


TRAINING = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers', 'message_hub', 'mlp_dense_state')
"""Keys under which a file may hold what a training goes on from."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint and what is known of it."""

    source: str | Path  # its name in the log and in errors: the file or address that was asked for
    path: Path | None  # the file; None for a state dict that was not read from one
    content: dict[str, Any]  # what it holds, as it is

    @classmethod
    def read(cls, source: str | Path, map_location: Any = 'cpu') -> 'Checkpoint':
        """Reads a file or address, see :func:`read_checkpoint`."""
        path = local_file(source)
        return cls(source, path, read_file(source, path, map_location))

    @property
    def is_safetensors(self) -> bool:
        return self.path is not None and is_safetensors(self.path)

    @property
    def container(self) -> str | None:
        """The key that the weights are kept under; None for a plain state dict."""
        return next((key for key in CONTAINERS if isinstance(self.content.get(key), Mapping)), None)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The tensors by name, without ``module.``, whatever they are kept under. CheckpointError: a file has none."""
        tensors = _tensors(self.content[self.container] if self.container else self.content)
        if not tensors and self.path:
            keys, allowed = ', '.join(map(str, list(self.content)[:8])), ' or '.join(CONTAINERS)
            raise CheckpointError(f'{self.source} holds no weights: no state dict and none as {allowed}, but {keys}.')
        if unreal := [name for name, tensor in tensors.items() if tensor.is_complex()]:
            raise CheckpointError(f'{self.source}: {unreal[0]} is complex, and no weight of a network here is.')
        return tensors

    @property
    def not_finite(self) -> list[str]:
        """The names of the weights that hold NaN or infinity."""
        plain = {
            name: tensor for name, tensor in self.weights.items() if is_plain(tensor) and tensor.is_floating_point()
        }
        return [name for name, tensor in plain.items() if not tensor.isfinite().all()]

    @property
    def training(self) -> dict[str, Any]:
        """What a training goes on from, and nothing else of the file: mmengine would run ``meta['config']``.
        CheckpointError: it holds no state of a training."""
        meta = self.content.get('meta')
        whole = isinstance(meta, Mapping) and {'optimizer', 'message_hub', 'state_dict'} <= self.content.keys()
        if not whole or not all(type(meta.get(key)) is int and meta[key] >= 0 for key in ('epoch', 'iter')):
            raise CheckpointError(
                f'{self.source} holds weights but no state of a training, so nothing can be resumed from it; '
                'start a new training from it with --cfg-options load_from=FILE.'
            )
        kept = {key: value for key, value in self.content.items() if key in TRAINING}
        return dict(
            kept, meta={key: meta[key] for key in ('epoch', 'iter', 'seed', 'dataset_meta', 'run_id') if key in meta}
        )

    @property
    def averaged(self) -> bool:
        """Whether ``weights`` are moving averages: mmengine's EMAHook saves those as ``state_dict``, and the trained
        ones as ``ema_state_dict``."""
        return self.container == 'state_dict' and 'ema_state_dict' in self.content

    @property
    def ema_weights(self) -> dict[str, Tensor]:
        """The exponential moving average of the weights. CheckpointError: there is none."""
        for key in ('model_ema', 'state_dict_ema', 'state_dict' if self.averaged else 'ema_state_dict'):
            if tensors := _tensors(self.content.get(key)):
                return tensors
        raise CheckpointError(f'{self.source} holds no EMA weights (model_ema or the like): omit --ema.')

    @property
    def dataset_meta(self) -> dict[str, Any]:
        """What it says of the data it was trained on: ``classes``, a tuple of names, and ``palette``, a list of
        [R, G, B] from 0 to 255, each only if it is there; that of mmdet 2 and mmseg 0 too. CheckpointError: the classes
        are no names."""
        meta = self.content.get('meta')
        meta = meta if isinstance(meta, Mapping) else {}
        stored = meta.get('dataset_meta') or meta
        stored = {str(key).lower(): value for key, value in stored.items()} if isinstance(stored, Mapping) else {}
        found = {}
        if classes := stored.get('classes'):
            if not isinstance(classes, (list, tuple)) or not all(isinstance(name, str) for name in classes):
                raise CheckpointError(f'{self.source}: the classes in its meta data are no list of names.')
            found['classes'] = tuple(classes)
        if (palette := stored.get('palette')) is not None:
            with contextlib.suppress(TypeError, ValueError, OverflowError):  # colours matter too little for an error
                found['palette'] = np.array(palette, dtype=np.uint8).reshape(-1, 3).tolist()
        return found


def read_checkpoint(source: str | Path, map_location: Any = 'cpu') -> dict[str, Any]:
    """Reads a checkpoint file or address as it is, without running anything in it.

    Args:
        source: a path, or an http, https or file address; downloads are kept in torch.hub's folder.
        map_location: where the tensors go, as in ``torch.load``.

    Raises:
        CheckpointError: the file is missing, damaged, or holds an object of a type that is not allowed.
    """
    return Checkpoint.read(source, map_location).content


def split_backbone(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of the backbone of a whole model, without ``backbone.`` before their names, and all others."""
    return below('backbone', weights), {key: weights[key] for key in weights if not key.startswith('backbone.')}


def below(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights whose names begin with a prefix, without it."""
    prefix = prefix.rstrip('.') + '.'
    return {key.removeprefix(prefix): weights[key] for key in weights if key.startswith(prefix)}


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor has values, each in a place of its own: it is not sparse, quantized or meta."""
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta


def _tensors(state_dict: Any) -> dict[str, Tensor]:
    """The tensors of a state dict by name, without ``module.`` before the names; none if it is something else."""
    items = state_dict.items() if isinstance(state_dict, Mapping) else ()
    named = {key: value for key, value in items if isinstance(key, str) and isinstance(value, Tensor)}
    if 'steps' in named and all(key == 'steps' or key.startswith('module.') for key in named):
        del named['steps']  # how often mmengine's EMAHook averaged
    return {key.removeprefix('module.'): value for key, value in named.items()}
