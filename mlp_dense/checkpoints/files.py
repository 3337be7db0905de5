"""Finds, downloads and reads the files of checkpoints; says which objects they may hold."""

import hashlib
import json
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
import torch

from ..errors import CheckpointError


class _Inert:
    """Stands in for an object that official files carry beside their weights; a plain dict comes in its place."""

    def __new__(cls, *args: Any, **kwargs: Any) -> OrderedDict:
        return OrderedDict()


def _safe_globals() -> list[Any]:
    """What a file may hold beside tensors and plain containers."""
    try:
        from mmengine.logging import HistoryBuffer
    except ImportError:
        HistoryBuffer = _Inert

    def statistic(owner: Any, name: str) -> Any:
        """mmengine pickles HistoryBuffer's statistics as ``getattr(HistoryBuffer, 'mean')``; this allows that alone."""
        if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
            return getattr(owner, name, None)
        raise pickle.UnpicklingError(f'GLOBAL builtins.getattr of {name!r} of {owner!r}')

    paths = (f'{module}.{kind}Path' for module in ('pathlib', 'pathlib._local') for kind in ('Posix', 'Windows'))
    return [
        # what the official files carry and nobody needs (pathlib._local: Python 3.13)
        *((_Inert, name) for name in ('argparse.Namespace', 'yacs.config.CfgNode', *paths)),
        # what mmengine stores in its checkpoints (NumPy renamed its modules in 2.0)
        (HistoryBuffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
        (statistic, 'builtins.getattr'),
        (statistic, '__builtin__.getattr'),
        np.ndarray,
        np.dtype,
        *(type(np.dtype(kind)) for kind in ('bool', 'int32', 'int64', 'uint8', 'float32', 'float64')),
        *(
            (getattr(np._core.multiarray, function), f'{package}.multiarray.{function}')
            for function in ('_reconstruct', 'scalar')
            for package in ('numpy.core', 'numpy._core')
        ),
    ]


def read_file(source: str | Path, path: Path, map_location: Any) -> dict[str, Any]:
    """What a file holds; `source` is its name in errors. CheckpointError: it is unusable, or could run code."""
    try:
        content = _read(path, map_location)
    except Exception as error:  # damaged bytes raise whatever they are first used for: the readers check little
        text = str(error)
        reason = (text.splitlines() or [type(error).__name__])[0]
        if isinstance(error, pickle.UnpicklingError):
            reason, details = 'no pickle of tensors', text.partition('WeightsUnpickler error')[2]
            named = re.search(r'(?:class|function|type) (\S+?)[ ,.\']', details)
            if offender := re.search(r'GLOBAL (\S+)', text) or named:
                raise CheckpointError(
                    f'{source} is refused, since loading it could run code: it holds {offender[1]}, which is neither a '
                    'tensor nor a plain container. Use a file from a source you trust, saved as a state dict.'
                ) from error
        kind = 'safetensors file' if is_safetensors(path) else 'PyTorch checkpoint'
        advice = f'delete {path} to download it again.' if _is_address(source) else 'is it complete?'
        raise CheckpointError(f'{source} cannot be read as a {kind} ({reason}); {advice}') from error
    if not isinstance(content, dict):
        raise CheckpointError(f'{source} holds a {type(content).__name__}, not a checkpoint or a state dict.')
    return content


def is_safetensors(path: Path) -> bool:
    return path.suffix.lower() == '.safetensors'


def _read(path: Path, map_location: Any) -> Any:
    if not is_safetensors(path):
        with torch.serialization.safe_globals(_safe_globals()):
            return torch.load(path, map_location=map_location, weights_only=True)
    with import_safetensors().safe_open(path, framework='pt', device=str(map_location or 'cpu')) as file:
        meta = {key: json.loads(text) for key, text in (file.metadata() or {}).items() if key == 'dataset_meta'}
        return dict(state_dict={key: file.get_tensor(key) for key in file.keys()}, meta=meta)  # noqa: SIM118


def import_safetensors() -> ModuleType:
    """The library, which only those need who have such files."""
    try:
        import safetensors.torch
    except ImportError as error:
        raise CheckpointError('Files of this kind need safetensors: pip install safetensors') from error
    return safetensors


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def local_file(source: str | Path) -> Path:
    """The path of a file, or of the download of an address, which is kept. CheckpointError: there is none."""
    source = str(source)
    if not _is_address(source):
        path = Path(url2pathname(urlparse(source).path) if source.startswith('file://') else source).expanduser()
        if not path.is_file():
            raise CheckpointError(f'Checkpoint {source} does not exist; give a file, or an http(s) address.')
        return path
    # Two addresses may end in the same name; a query is no part of it.
    name = f'{hashlib.sha256(source.encode()).hexdigest()[:8]}-{Path(urlparse(source).path).name}'
    path = Path(torch.hub.get_dir()) / 'checkpoints' / name
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not path.exists() and not (distributed and torch.distributed.get_node_local_rank(0)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(source, str(path))
        except OSError as error:
            raise CheckpointError(f'{source} cannot be downloaded ({error}); do it by hand, give its path.') from error
    if distributed:
        torch.distributed.barrier()
    return path


def _is_address(source: str | Path) -> bool:
    return bool(re.match(r'https?://', str(source)))
