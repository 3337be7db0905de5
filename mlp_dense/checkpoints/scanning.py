"""What a file names and declares, found without loading it: PyTorch's own safe list has more than a checkpoint needs,
such as constructors that reserve any memory and nested tensors that read outside of theirs."""

import pickle
import pickletools
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

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
"""Names, beside those of storages and dtypes, that PyTorch writes for plain tensors and containers."""
LEGACY_PICKLES = 5  # in a file before the zip format: magic number, version, machine, content, keys of the storages


def scan(path: Path, stand_ins: Collection[str]) -> None:
    """Looks at a file of PyTorch before it is loaded; `stand_ins` are names that are allowed beside plain ones.
    UnpicklingError: it names something else. ValueError: it is no such file, or declares more bytes than it has."""
    for name in _names(path):
        module, _, kind = name.rpartition('.')
        is_storage = module in ('torch', 'torch.cuda') and kind.endswith('Storage')
        is_dtype = module == 'torch' and isinstance(getattr(torch, kind, None), torch.dtype)
        if not (is_storage or is_dtype or name in PLAIN or name in stand_ins):
            raise pickle.UnpicklingError(f'GLOBAL {name}')


def _names(path: Path) -> Iterator[str]:
    """What the pickles of a file name, in their order."""
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
        # PyTorch never compresses, and would believe what the directory says.
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError('it declares more bytes than it has')
        if any(entry.filename.lower().endswith('/constants.pkl') for entry in entries):
            raise ValueError('it is a program of TorchScript, not weights')
        for entry in entries:
            if entry.filename.lower().endswith('data.pkl'):
                with archive.open(entry) as file:
                    yield from _names_in(file)


def _names_in(file: BinaryIO) -> Iterator[str]:
    strings = ['', '']
    for operation, argument, _ in pickletools.genops(file):
        if operation.name in ('GLOBAL', 'INST'):
            yield argument.replace(' ', '.')
        elif operation.name == 'STACK_GLOBAL':  # of newer pickles, which PyTorch does not read
            yield '.'.join(strings[-2:])
        elif isinstance(argument, str):
            strings = [strings[-1], argument]
