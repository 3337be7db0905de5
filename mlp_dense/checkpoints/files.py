"""Finding, downloading and reading of checkpoint files."""

import hashlib
import json
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import HTTPRedirectHandler, Request, build_opener, url2pathname

import torch
from torch import Tensor
from torch.hub import tqdm

from ..errors import CheckpointError, explained_imports
from .safe_types import safe_globals, scan


def read_file(source: str | Path, path: Path, map_location: Any) -> dict[str, Any]:
    """Read a checkpoint file, named `source` in errors. A file that is unusable or could run code is refused."""
    try:
        content = _read(path, map_location)
    except Exception as error:  # damaged bytes can raise any error: the readers check little
        raise _explained(error, source, path) from error
    if not isinstance(content, dict):
        raise CheckpointError(f'{source} holds a {type(content).__name__}, not a checkpoint or a state dict.')
    storage_sizes = {}
    for tensor in _tensors_in(content):
        if tensor.layout == torch.strided and not tensor.is_meta:
            storage = tensor.untyped_storage()
            storage_sizes[storage.data_ptr()] = size = storage.nbytes()
            if tensor.numel() * tensor.element_size() > size:
                shape = 'x'.join(map(str, tensor.shape))
                raise CheckpointError(f'{source} is refused: a tensor of {shape} in it has only {size} bytes.')
    if sum(storage_sizes.values()) > path.stat().st_size:
        raise CheckpointError(f'{source} is refused: its tensors declare more bytes than it has.')
    return content


def _explained(error: Exception, source: str | Path, path: Path) -> CheckpointError:
    text = str(error)
    reason = (text.splitlines() or [type(error).__name__])[0]
    if isinstance(error, pickle.UnpicklingError):
        reason, details = 'not a pickle of tensors', text.partition('WeightsUnpickler error')[2]
        named = re.search(r'(?:class|function|type) (\S+?)[ ,.\']', details)
        if offender := re.search(r'GLOBAL (\S+)', text) or named:
            return CheckpointError(
                f'{source} is refused, since loading it could run code: it holds {offender[1]}, which is not a '
                'tensor or container. Use a file from a source that you trust, saved as a state dict.'
            )
    file_type = 'safetensors file' if is_safetensors(path) else 'PyTorch checkpoint'
    remedy = f'delete {path} to download it again.' if is_url(source) else 'use a complete file.'
    return CheckpointError(f'{source} cannot be read as a {file_type} ({reason}); {remedy}')


def _tensors_in(content: Any) -> Iterator[Tensor]:
    """Yield all tensors of nested containers, and remove the attributes, such as methods, that a file adds to them."""
    todo, seen = [content], set()
    while todo:
        if id(node := todo.pop()) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Tensor):
            vars(node).clear()
            node._backward_hooks = None
            yield node
        elif isinstance(node, dict):
            if isinstance(node, OrderedDict):
                versions = vars(node).pop('_metadata', None)
                vars(node).clear()
                if isinstance(versions, dict):  # the versions of the modules of a state dict
                    vars(node)['_metadata'] = versions
            todo += [*dict.keys(node), *dict.values(node)]
        elif isinstance(node, (list, tuple, set)):
            todo += node


def is_safetensors(path: Path) -> bool:
    """Whether the name of a file ends in .safetensors."""
    return path.suffix.lower() == '.safetensors'


def _read(path: Path, map_location: Any) -> Any:
    if not is_safetensors(path):
        allowed = safe_globals()
        scan(path, [name for _, name in allowed])
        with torch.serialization.safe_globals([*allowed]):
            return torch.load(path, map_location=map_location, weights_only=True)
    with explained_imports():
        from safetensors import safe_open
    with safe_open(path, framework='pt', device=str(map_location or 'cpu')) as file:
        meta = {key: json.loads(text) for key, text in (file.metadata() or {}).items() if key == 'dataset_meta'}
        return dict(state_dict={key: file.get_tensor(key) for key in file.keys()}, meta=meta)  # noqa: SIM118


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def local_file(source: str | Path) -> Path:
    """Return the path of a file or of the cached download of a URL, or raise a CheckpointError."""
    source = str(source)
    if not is_url(source):
        path = Path(url2pathname(urlparse(source).path) if source.startswith('file://') else source).expanduser()
        if path.is_dir():
            raise CheckpointError(f'Checkpoint {source} is a folder; pass a file in it, such as epoch_12.pth.')
        if not path.is_file():
            raise CheckpointError(f'Checkpoint {source} does not exist; pass a file or an https URL.')
        return path
    _check_url(source)
    # The hash distinguishes URLs that end in the same name. A query is not part of the name.
    name = f'{hashlib.sha256(source.encode()).hexdigest()[:8]}-{Path(urlparse(source).path).name}'
    path = Path(torch.hub.get_dir()) / 'checkpoints' / name
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not path.exists() and not (distributed and torch.distributed.get_node_local_rank(0)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _download(source, path)
        except OSError as error:
            problem = f'{source} cannot be downloaded ({error})'
            raise CheckpointError(f'{problem}; download it by hand and pass its path.') from error
    if distributed:
        torch.distributed.barrier()
    return path


def _check_url(url: str) -> None:
    if not url.startswith('https://') and not os.environ.get('MLP_DENSE_ALLOW_HTTP'):
        raise CheckpointError(
            f'{url} is not fetched over {url.partition("://")[0]}, since others could change the file on its way. '
            'Pass an https URL or a file, or set MLP_DENSE_ALLOW_HTTP=1 for http.'
        )


class _CheckedRedirects(HTTPRedirectHandler):
    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        _check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, path: Path) -> None:
    """Download a file under a temporary name, and rename it if its size and the hash in its name are correct."""
    unfinished = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        with build_opener(_CheckedRedirects).open(Request(url, headers={'User-Agent': 'mlp_dense'})) as response:
            size = response.headers.get('Content-Length')
            with unfinished.open('wb') as file, tqdm(total=size and int(size), unit='B', unit_scale=True) as progress:
                while block := response.read(1 << 20):
                    file.write(block)
                    progress.update(len(block))
        if size and int(size) != unfinished.stat().st_size:
            raise OSError('the connection was lost')
        match = re.search(r'-(?!(?:19|20)\d{6}\.)([0-9a-f]{8,64})\.\w+$', path.name)  # a date is not a hash
        expected = match[1] if match else ''
        if not (digest := sha256_of(unfinished)).startswith(expected):
            problem = f'{url} has another SHA-256 than its name, it begins with {digest[:8]}'
            raise CheckpointError(f'{problem}; use another source.')
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def is_url(source: str | Path) -> bool:
    """Whether a source is a URL to download, not a file or file URL."""
    return bool(re.match(r'(?!file:)[\w+-]+://', str(source)))
