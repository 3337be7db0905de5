"""Reads checkpoint files safely: no code in a file is ever run.

Files understood: safetensors; ``{'state_dict': ...}`` (OpenMMLab, official dense models), ``{'model': ...}`` and
``{'model_ema': ...}`` (official ImageNet models) and plain state dicts, as PyTorch saves them.
"""

import contextlib
import hashlib
import json
import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
import torch
from mmengine.dist import barrier, get_local_rank
from mmengine.logging import HistoryBuffer
from torch import Tensor

from ..errors import CheckpointError

CONTAINERS = ('state_dict', 'model', 'model_ema', 'ema_state_dict')
"""Keys under which a file may hold its weights, in the order in which they are looked for."""


class _Inert:
    """Stands in for an object that official files carry beside their weights; a plain dict comes in its place."""

    def __new__(cls, *args: Any, **kwargs: Any) -> OrderedDict:
        return OrderedDict()


def _history_buffer_method(owner: Any, name: str) -> Any:
    """mmengine pickles HistoryBuffer's statistics as ``getattr(HistoryBuffer, 'mean')``; this allows that alone."""
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(owner, name)
    raise pickle.UnpicklingError(f'GLOBAL builtins.getattr of {name!r} of {owner!r}')


# Beside tensors and plain containers, a file may hold these and nothing else.
_SAFE_GLOBALS = [
    # what the official files carry and nobody needs
    *(
        (_Inert, name)
        for name in (
            *('argparse.Namespace', 'yacs.config.CfgNode'),
            *(f'pathlib{inner}.{system}Path' for inner in ('', '._local') for system in ('Posix', 'Windows')),
        )
    ),
    # what mmengine stores in its checkpoints (NumPy renamed its modules in 2.0)
    HistoryBuffer,
    *((_history_buffer_method, name) for name in ('builtins.getattr', '__builtin__.getattr')),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ('bool', 'int32', 'int64', 'uint8', 'float32', 'float64')),
    *(
        (getattr(np._core.multiarray, function), f'{package}.multiarray.{function}')
        for function in ('_reconstruct', 'scalar')
        for package in ('numpy.core', 'numpy._core')
    ),
]


_DAMAGE = (
    *(OSError, RuntimeError, EOFError, LookupError, ValueError, AttributeError, TypeError, OverflowError, MemoryError),
    *(AssertionError, struct.error),
)


def read_checkpoint(source: str | Path, map_location: Any = 'cpu') -> dict[str, Any]:
    """Reads a checkpoint file or address as it is, without running anything in it.

    Args:
        source: a path, or an address that begins with http://, https:// or file://; downloads are kept in torch.hub's
            folder.
        map_location: where the tensors go, as in ``torch.load``.

    Raises:
        CheckpointError: the file is missing, damaged, or holds an object of a type that is not allowed.
    """
    path = local_file(source)
    read = _read_safetensors if path.suffix.lower() == '.safetensors' else _read_pickle
    try:
        checkpoint = read(path, map_location)
    except pickle.UnpicklingError as error:
        text = str(error)
        offender = re.search(r'GLOBAL (\S+)', text) or re.search(
            r'(?:class|function|type) (\S+?)[ ,.\']', text.partition('WeightsUnpickler error')[2]
        )
        if not offender:
            raise _unreadable(source, path, 'no pickle of tensors') from error
        raise CheckpointError(
            f'{source} is refused, since loading it could run code: it holds {offender[1]}, which is neither a tensor '
            'nor a plain container. Use a file from a source you trust, saved as a state dict.'
        ) from error
    except _DAMAGE as error:
        raise _unreadable(source, path, (str(error).splitlines() or [type(error).__name__])[0]) from error
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f'{source} holds a {type(checkpoint).__name__}, not a checkpoint or a state dict.')
    return checkpoint


def _read_pickle(path: Path, map_location: Any) -> Any:
    with torch.serialization.safe_globals(_SAFE_GLOBALS):
        return torch.load(path, map_location=map_location, weights_only=True)


def _read_safetensors(path: Path, map_location: Any) -> dict[str, Any]:
    safetensors = import_safetensors()
    try:
        with safetensors.safe_open(path, framework='pt', device=str(map_location or 'cpu')) as file:
            meta = {key: json.loads(text) for key, text in (file.metadata() or {}).items() if key == 'dataset_meta'}
            return dict(state_dict={key: file.get_tensor(key) for key in file.keys()}, meta=meta)  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from error


def import_safetensors() -> ModuleType:
    """The library, which only those need who have such files."""
    try:
        import safetensors.torch
    except ImportError as error:
        raise CheckpointError('Files of this kind need safetensors: pip install safetensors') from error
    return safetensors


def _unreadable(source: str | Path, path: Path, reason: str) -> CheckpointError:
    kind = 'safetensors file' if path.suffix.lower() == '.safetensors' else 'PyTorch checkpoint'
    advice = f'delete {path} to download it again.' if _is_address(source) else 'is it complete?'
    return CheckpointError(f'{source} cannot be read as a {kind} ({reason}); {advice}')


def weights_of(checkpoint: Mapping[str, Any], source: str | Path) -> dict[str, Tensor]:
    """The state dict inside a checkpoint, whatever it is kept under, without ``module.`` before the names.

    Raises:
        CheckpointError: there are no tensors in it.
    """
    container = container_of(checkpoint)
    tensors = tensors_of(checkpoint[container] if container else checkpoint)
    if not tensors:
        keys, containers = ', '.join(map(str, list(checkpoint)[:8])), ' or '.join(CONTAINERS)
        raise CheckpointError(
            f'{source} holds no weights: it should be a state dict or hold one as {containers}, not {keys}.'
        )
    return tensors


def tensors_of(state_dict: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict by name, without ``module.`` before the names."""
    named = {key: value for key, value in state_dict.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if 'steps' in named and all(key == 'steps' or key.startswith('module.') for key in named):
        del named['steps']  # how often mmengine's EMAHook averaged
    return {key.removeprefix('module.'): value for key, value in named.items()}


def container_of(checkpoint: Mapping[str, Any]) -> str | None:
    """The key that the weights of a checkpoint are kept under; None for a plain state dict."""
    return next((key for key in CONTAINERS if isinstance(checkpoint.get(key), Mapping)), None)


def dataset_meta_of(checkpoint: Mapping[str, Any], source: str | Path) -> dict[str, Any]:
    """What a checkpoint says of the data it was trained on: ``classes``, a tuple of names, and ``palette``, a list of
    (R, G, B) from 0 to 255, each only if it is there; that of mmdet 2 and mmseg 0 too.

    Raises:
        CheckpointError: the classes are no names.
    """
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    stored = meta.get('dataset_meta') or meta
    stored = {str(key).lower(): value for key, value in stored.items()} if isinstance(stored, Mapping) else {}
    found = {}
    if classes := stored.get('classes'):
        if not isinstance(classes, (list, tuple)) or not all(isinstance(name, str) for name in classes):
            raise CheckpointError(f'{source}: the classes in its meta data are no list of names.')
        found['classes'] = tuple(classes)
    palette = stored.get('palette')
    with contextlib.suppress(TypeError, ValueError, OverflowError):  # colours matter too little for an error
        found |= dict(palette=np.array(palette, dtype=np.uint8).reshape(-1, 3).tolist()) if palette is not None else {}
    return found


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _is_address(source: str | Path) -> bool:
    return bool(re.match(r'https?://', str(source)))


def local_file(source: str | Path) -> Path:
    """The path of a file, or of the download of an address, which takes place when it is first asked for.

    Raises:
        CheckpointError: it does not exist, or the download fails.
    """
    source = str(source)
    if source.startswith('file://'):
        source = url2pathname(urlparse(source).path)
    if _is_address(source):
        # Two addresses may end in the same name; a query is no part of it.
        name = f'{hashlib.sha256(source.encode()).hexdigest()[:8]}-{Path(urlparse(source).path).name}'
        path = Path(torch.hub.get_dir()) / 'checkpoints' / name
        if get_local_rank() == 0 and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                torch.hub.download_url_to_file(source, str(path))
            except OSError as error:
                raise CheckpointError(
                    f'{source} cannot be downloaded ({error}); download it by hand and give its path.'
                ) from error
        barrier()
        return path
    path = Path(source).expanduser()
    if not path.is_file():
        raise CheckpointError(f'Checkpoint {source} does not exist; give the path of a file, or an http(s) address.')
    return path
