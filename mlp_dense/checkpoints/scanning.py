"""Scan of a checkpoint file for the names and sizes that it declares, without loading it.

PyTorch's own safe list is too long for checkpoints: it contains constructors that reserve any amount of memory and
nested tensors that read outside of their storage.
"""

import pickle
import pickletools
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

import torch

PLAIN = {
    'collections.OrderedDict',
    'collections.Counter',
    '_codecs.encode',  # bytes
    'builtins.set',
    '__builtin__.set',
    'torch.Size',
    'torch.device',
    'torch.storage.UntypedStorage',
    'torch.nn.parameter.Parameter',
    'torch._utils._rebuild_tensor',
    'torch._utils._rebuild_tensor_v2',
    'torch._utils._rebuild_tensor_v3',
    'torch._utils._rebuild_meta_tensor_no_storage',
    'torch._utils._rebuild_parameter',
    'torch._utils._rebuild_parameter_with_state',
}
"""Names that PyTorch writes for ordinary tensors and containers, in addition to those of storages and dtypes."""
LEGACY_PICKLES = 5  # in a file before the zip format: magic number, version, machine, content, keys of the storages


def scan(path: Path, allowed: Collection[str]) -> None:
    """Check a PyTorch file before it is loaded. `allowed` are names in addition to PLAIN.

    Raises:
        UnpicklingError: The file contains a name that is not allowed.
        ValueError: The file is not a PyTorch checkpoint, or it declares more bytes than it has.
    """
    for name in _names(path):
        module, _, attribute = name.rpartition('.')
        is_storage = module in ('torch', 'torch.cuda') and attribute.endswith('Storage')
        is_dtype = module == 'torch' and isinstance(getattr(torch, attribute, None), torch.dtype)
        if not (is_storage or is_dtype or name in PLAIN or name in allowed):
            raise pickle.UnpicklingError(f'GLOBAL {name}')


def _names(path: Path) -> Iterator[str]:
    """Yield the names in the pickles of a file in their order."""
    try:
        if not zipfile.is_zipfile(path):
            with path.open('rb') as file:
                for _ in range(LEGACY_PICKLES):
                    yield from _names_in(file)
            return
    except ValueError as error:
        raise ValueError('neither a zip file nor pickles as PyTorch writes them') from error
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        # PyTorch never compresses, and trusts the sizes in the zip directory.
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError('it declares more bytes than it has')
        if any(entry.filename.lower().endswith('/constants.pkl') for entry in entries):
            raise ValueError('it is a TorchScript program, not weights')
        for entry in entries:
            if entry.filename.lower().endswith('data.pkl'):
                with archive.open(entry) as member:
                    yield from _names_in(member)


def _names_in(file: IO[bytes]) -> Iterator[str]:
    strings = ['', '']
    for operation, argument, _ in pickletools.genops(file):
        if operation.name in ('GLOBAL', 'INST'):
            yield argument.replace(' ', '.')
        elif operation.name == 'STACK_GLOBAL':  # in newer pickles, which PyTorch does not read
            yield '.'.join(strings[-2:])
        elif isinstance(argument, str):
            strings = [strings[-1], argument]
