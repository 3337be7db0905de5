"""Finds, downloads and reads the files of checkpoints."""

import hashlib
import json
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlparse
from urllib.request import HTTPRedirectHandler, Request, build_opener, url2pathname

import torch
from torch import Tensor
from torch.hub import tqdm

from ..errors import CheckpointError
from .safe_types import safe_globals
from .scanning import scan


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
                    f'{source} is refused, since loading it could run code: it holds {offender[1]}, which plain '
                    'tensors and containers do not need. Use a file from a source you trust, saved as a state dict.'
                ) from error
        kind = 'safetensors file' if is_safetensors(path) else 'PyTorch checkpoint'
        advice = f'delete {path} to download it again.' if _is_address(source) else 'is it complete?'
        raise CheckpointError(f'{source} cannot be read as a {kind} ({reason}); {advice}') from error
    if not isinstance(content, dict):
        raise CheckpointError(f'{source} holds a {type(content).__name__}, not a checkpoint or a state dict.')
    stored = {}
    for tensor in _tensors_in(content):
        if tensor.layout == torch.strided and not tensor.is_meta:
            storage = tensor.untyped_storage()
            stored[storage.data_ptr()] = storage.nbytes()
            if tensor.numel() * tensor.element_size() > storage.nbytes():
                kind, size = 'x'.join(map(str, tensor.shape)), storage.nbytes()
                raise CheckpointError(f'{source} is refused: a tensor of {kind} in it has only {size} bytes.')
    if sum(stored.values()) > path.stat().st_size:
        raise CheckpointError(f'{source} is refused: its tensors declare more bytes than it has.')
    return content


def _tensors_in(content: Any) -> Iterator[Tensor]:
    """All tensors of nested containers, which may hold one another. What a file adds to objects as attributes, such as
    a method of its own, is taken from them; a state dict keeps its versions."""
    todo, seen = [content], set()
    while todo:
        node = todo.pop()
        if id(node) in seen:
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
                if isinstance(versions, dict):
                    node._metadata = versions
            todo += [*dict.keys(node), *dict.values(node)]
        elif isinstance(node, (list, tuple, set)):
            todo += node


def is_safetensors(path: Path) -> bool:
    return path.suffix.lower() == '.safetensors'


def _read(path: Path, map_location: Any) -> Any:
    if not is_safetensors(path):
        allowed = safe_globals()
        scan(path, [name for _, name in allowed])
        with torch.serialization.safe_globals(allowed):
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
        if path.is_dir():
            raise CheckpointError(f'Checkpoint {source} is a folder; give a file in it, such as epoch_12.pth.')
        if not path.is_file():
            raise CheckpointError(f'Checkpoint {source} does not exist; give a file, or an https address.')
        return path
    _check_address(source)
    # Two addresses may end in the same name; a query is no part of it.
    name = f'{hashlib.sha256(source.encode()).hexdigest()[:8]}-{Path(urlparse(source).path).name}'
    path = Path(torch.hub.get_dir()) / 'checkpoints' / name
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not path.exists() and not (distributed and torch.distributed.get_node_local_rank(0)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _download(source, path)
        except OSError as error:
            raise CheckpointError(f'{source} cannot be downloaded ({error}); do it by hand, give its path.') from error
    if distributed:
        torch.distributed.barrier()
    return path


def check_exists(source: str | Path) -> None:
    """CheckpointError: a file of this machine is missing. An address is not tried."""
    if not _is_address(source):
        local_file(source)


def _check_address(address: str) -> None:
    """CheckpointError: it is none that may be fetched."""
    if not address.startswith('https://') and not os.environ.get('MLP_DENSE_ALLOW_HTTP'):
        raise CheckpointError(
            f'{address} is not fetched over {address.partition("://")[0]}, which anyone on the way could change; '
            'give an https address or a file, or set MLP_DENSE_ALLOW_HTTP=1 for http.'
        )


class CheckedRedirects(HTTPRedirectHandler):
    """An address that is fetched over https must not lead to one that is not."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(address: str, path: Path) -> None:
    """Fetches a file under a temporary name, which it loses only if it is all there and has the hash that ends its
    name, if any. OSError: it cannot be fetched. CheckpointError: it is another file, or leads to http."""
    unfinished = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        with build_opener(CheckedRedirects).open(Request(address, headers={'User-Agent': 'mlp_dense'})) as response:
            size = response.headers.get('Content-Length')
            with unfinished.open('wb') as file, tqdm(total=size and int(size), unit='B', unit_scale=True) as progress:
                while block := response.read(1 << 20):
                    file.write(block)
                    progress.update(len(block))
        if size and int(size) != unfinished.stat().st_size:
            raise OSError('it broke off')
        expected = _hash_in(path.name) or ''
        if not (digest := sha256_of(unfinished)).startswith(expected):
            raise CheckpointError(f'{address} is not the file that its name says: its SHA-256 begins {digest[:8]}.')
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _is_address(source: str | Path) -> bool:
    return bool(re.match(r'(?!file:)[\w+-]+://', str(source)))


def _hash_in(name: str) -> str | None:
    """The start of the SHA-256 that a name such as hire-1a2b3c4d.pth ends in; what looks like a date is none."""
    found = re.search(r'-([0-9a-f]{8,64})\.\w+$', name)
    return found[1] if found and not re.fullmatch(r'(19|20)\d{6}', found[1]) else None
