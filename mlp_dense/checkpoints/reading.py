"""Safe reading of checkpoint files: no code in a file is ever executed.

Supported are safetensors, ``{'state_dict': ...}`` (OpenMMLab, official dense models), ``{'model': ...}`` and
``{'model_ema': ...}`` (official ImageNet models), and bare state dicts, as PyTorch saves them.
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
from .files import local_file, read_file

CONTAINERS = ('state_dict', 'model', 'model_ema', 'ema_state_dict')
"""Keys of the weights in a file, by descending priority."""
TRAINING = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers', 'message_hub', 'mlp_dense_state')
"""Keys of the state from which a training run resumes."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint and its interpretation."""

    source: str | Path  # its name in the log and in errors: the file or URL that was requested
    path: Path | None  # the file; None for a state dict that was not read from a file
    content: dict[str, Any]  # the unchanged content

    @classmethod
    def read(cls, source: str | Path, map_location: Any = 'cpu') -> 'Checkpoint':
        """Read a file or URL, see :func:`read_checkpoint`."""
        path = local_file(source)
        return cls(source, path, read_file(source, path, map_location))

    @property
    def container(self) -> str | None:
        """The key of the weights, None for a bare state dict."""
        return next((key for key in CONTAINERS if isinstance(self.content.get(key), Mapping)), None)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The tensors by name, without ``module.``. A file without weights raises a CheckpointError."""
        tensors = _tensors(self.content[self.container] if self.container else self.content)
        if not tensors and self.path:
            keys, allowed = ', '.join(map(str, list(self.content)[:8])), ' or '.join(CONTAINERS)
            problem = f'{self.source} holds no weights, only {keys}'
            raise CheckpointError(f'{problem}; use a state dict or a file with the key {allowed}.')
        if complex_names := [name for name, tensor in tensors.items() if tensor.is_complex()]:
            raise CheckpointError(f'{self.source}: {complex_names[0]} is complex-valued; use real weights.')
        return tensors

    @property
    def not_finite(self) -> list[str]:
        """The names of the weights that contain NaN or infinity."""
        tensors = ((name, tensor) for name, tensor in self.weights.items() if is_plain(tensor))
        return [name for name, tensor in tensors if tensor.is_floating_point() and not tensor.isfinite().all()]

    @property
    def training(self) -> dict[str, Any]:
        """The state from which a training run resumes, without ``meta['config']``, which mmengine would execute."""
        meta: Any = self.content.get('meta')
        is_training = isinstance(meta, Mapping) and {'optimizer', 'message_hub', 'state_dict'} <= self.content.keys()
        if not is_training or not all(type(meta.get(key)) is int and meta[key] >= 0 for key in ('epoch', 'iter')):
            raise CheckpointError(
                f'{self.source} holds weights but not the state of a training run, so it cannot be resumed. '
                'Start a new training run from it with --cfg-options load_from=FILE.'
            )
        state = {key: value for key, value in self.content.items() if key in TRAINING}
        kept = ('epoch', 'iter', 'seed', 'dataset_meta', 'run_id')
        return dict(state, meta={key: meta[key] for key in kept if key in meta})

    @property
    def averaged(self) -> bool:
        """Whether ``weights`` are moving averages of mmengine's EMAHook, and ``ema_state_dict`` the trained ones."""
        return self.container == 'state_dict' and 'ema_state_dict' in self.content

    @property
    def ema_weights(self) -> dict[str, Tensor]:
        """The exponential moving average of the weights. Without one a CheckpointError is raised."""
        for key in ('model_ema', 'state_dict_ema', 'state_dict' if self.averaged else 'ema_state_dict'):
            if tensors := _tensors(self.content.get(key)):
                return tensors
        raise CheckpointError(f'{self.source} holds no EMA weights (model_ema or similar): omit --ema.')

    @property
    def dataset_meta(self) -> dict[str, Any]:
        """The ``classes``, a tuple of names, and the ``palette``, a list of [R, G, B]. Both are optional."""
        meta = self.content.get('meta')
        stored = meta.get('dataset_meta') or meta if isinstance(meta, Mapping) else {}  # mmdet 2 has no dataset_meta
        stored = {str(key).lower(): value for key, value in stored.items()} if isinstance(stored, Mapping) else {}
        dataset_meta: dict[str, Any] = {}
        if classes := stored.get('classes'):
            if not isinstance(classes, (list, tuple)) or not all(isinstance(name, str) for name in classes):
                raise CheckpointError(f'{self.source}: the classes in its meta data are not a list of names.')
            dataset_meta['classes'] = tuple(classes)
        if (palette := stored.get('palette')) is not None:
            with contextlib.suppress(TypeError, ValueError, OverflowError):  # colours are optional
                dataset_meta['palette'] = np.array(palette, dtype=np.uint8).reshape(-1, 3).tolist()
        return dataset_meta


def read_checkpoint(source: str | Path, map_location: Any = 'cpu') -> dict[str, Any]:
    """Read a checkpoint without executing anything in it, and return its unchanged content.

    Args:
        source: A path or an https or file URL. Downloads are kept in the folder of torch.hub.
        map_location: Device of the tensors, as in ``torch.load``.

    Raises:
        CheckpointError: The file is missing, damaged, or contains an object of a type that is not allowed.
    """
    return Checkpoint.read(source, map_location).content


def split_backbone(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights of a model's backbone, without ``backbone.`` in their names, and all other weights."""
    return below('backbone', weights), {key: weights[key] for key in weights if not key.startswith('backbone.')}


def below(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights whose names start with a prefix, without the prefix."""
    prefix = prefix.rstrip('.') + '.'
    return {key.removeprefix(prefix): weights[key] for key in weights if key.startswith(prefix)}


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is dense: not sparse, quantized or on the meta device."""
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta


def _tensors(state_dict: Any) -> dict[str, Tensor]:
    """Return the tensors of a state dict by name, without ``module.``, or an empty dict for other objects."""
    items = state_dict.items() if isinstance(state_dict, Mapping) else ()
    named = {key: value for key, value in items if isinstance(key, str) and isinstance(value, Tensor)}
    if 'steps' in named and all(key == 'steps' or key.startswith('module.') for key in named):
        del named['steps']  # the number of averages of mmengine's EMAHook
    return {key.removeprefix('module.'): value for key, value in named.items()}
