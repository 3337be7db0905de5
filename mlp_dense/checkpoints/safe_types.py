"""Allowed contents of checkpoint files: a scan before loading, and safe types for objects other than tensors.

PyTorch's own safe list is too long for checkpoints: it contains constructors that reserve any amount of memory and
nested tensors that read outside of their storage.
"""

import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

PLAIN = {
    *('collections.OrderedDict', 'collections.Counter', 'builtins.set', '__builtin__.set', '_codecs.encode'),
    *('torch.Size', 'torch.device', 'torch.storage.UntypedStorage', 'torch.nn.parameter.Parameter'),
    *(f'torch._utils._rebuild_{name}' for name in ('tensor', 'tensor_v2', 'tensor_v3', 'meta_tensor_no_storage')),
    *(f'torch._utils._rebuild_{name}' for name in ('parameter', 'parameter_with_state')),
}
"""Names that PyTorch writes for ordinary tensors and containers, in addition to those of storages and dtypes."""
LEGACY_PICKLES = 5  # in a file before the zip format: magic number, version, machine, content, keys of the storages
DTYPES = {np.dtype(name).str[1:]: np.dtype(name) for name in ('?', 'i4', 'i8', 'u1', 'f4', 'f8')}


class Inert:
    """Placeholder for unused objects in official files. It becomes a dict."""

    def __new__(cls, *args: Any, **kwargs: Any) -> OrderedDict:  # type: ignore[misc]
        return OrderedDict()


class PlainDtype:
    """Replacement for ``numpy.dtype``, whose state a file could forge. It allows a few numeric types."""

    def __init__(self, name: str, *flags: Any):
        if not isinstance(name, str) or name not in DTYPES:
            raise pickle.UnpicklingError(f'GLOBAL numpy.dtype of {str(name)[:40]!r}')
        self.dtype = DTYPES[name]

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or state[:2] not in ((3, '<'), (3, '|')) or any(state[2:5]):
            raise pickle.UnpicklingError('GLOBAL numpy.dtype with fields or of another byte order')


class PlainArray(np.ndarray):
    """Replacement for ``numpy.ndarray``, whose constructor and state could forge pointers."""

    def __new__(cls, *args: Any, **kwargs: Any) -> 'PlainArray':
        raise pickle.UnpicklingError('GLOBAL numpy.ndarray that is constructed')

    def __setstate__(self, state: Any) -> None:
        try:
            version, shape, dtype, fortran, data = state
            fits = version == 1 and len(data) == math.prod(shape) * dtype.dtype.itemsize and min(shape, default=0) >= 0
            fits = fits and type(shape) is tuple and {type(size) for size in shape} <= {int}
            fits = fits and isinstance(dtype, PlainDtype) and type(data) is bytes and type(fortran) is bool
        except (TypeError, ValueError, AttributeError, OverflowError):
            fits = False
        if not fits:
            raise pickle.UnpicklingError('GLOBAL numpy.ndarray whose shape, type and bytes do not agree')
        super().__setstate__((1, shape, dtype.dtype, fortran, data))

    def __reduce__(self) -> Any:
        return self.view(np.ndarray).__reduce__()  # saved as an array of NumPy


def _reconstruct(array_type: Any, *args: Any) -> PlainArray:
    if array_type is not PlainArray:
        raise pickle.UnpicklingError('GLOBAL numpy reconstruct of something other than an array')
    return np.empty(0, np.uint8).view(PlainArray)


def _scalar(dtype: Any, data: Any) -> Any:
    if not isinstance(dtype, PlainDtype) or type(data) is not bytes or len(data) != dtype.dtype.itemsize:
        raise pickle.UnpicklingError('GLOBAL numpy scalar whose type and bytes do not agree')
    return np.frombuffer(data, dtype.dtype)[0]


def _history_type() -> type:
    """Return the replacement for HistoryBuffer, whose state could replace the methods of all buffers."""
    try:
        from mmengine.logging import HistoryBuffer
    except ImportError:
        return Inert

    class History(HistoryBuffer):
        def __setstate__(self, state: Any) -> None:
            log, count, length = (state.get(key) for key in ('_log_history', '_count_history', 'max_length'))
            fits = all(isinstance(array, PlainArray) and array.ndim == 1 for array in (log, count))
            if not fits or len(log) != len(count) or type(length) is not int or length < 1:
                raise pickle.UnpicklingError('GLOBAL mmengine.logging.history_buffer.HistoryBuffer without arrays')
            HistoryBuffer.__init__(self, log, count, length)
            self.__class__ = HistoryBuffer

    return History


def safe_globals() -> list[tuple[Any, str]]:
    """Return pairs (replacement, name in the file) for all types that :func:`torch.load` does not support itself."""
    history_type = _history_type()

    def statistic(owner: Any, name: str) -> None:
        """Allow ``getattr`` only of HistoryBuffer's statistics, such as ``mean``, which mmengine pickles this way."""
        if owner is not history_type or name not in ('min', 'max', 'mean', 'current'):
            raise pickle.UnpicklingError(f'GLOBAL builtins.getattr of {str(name)[:40]!r}')

    paths = (f'{module}.{system}Path' for module in ('pathlib', 'pathlib._local') for system in ('Posix', 'Windows'))
    builtins, multiarray = ('builtins', '__builtin__'), ('numpy.core.multiarray', 'numpy._core.multiarray')
    return [
        # unused objects in official files (pathlib._local: Python 3.13)
        *((Inert, name) for name in ('argparse.Namespace', 'yacs.config.CfgNode', *paths)),
        # objects in mmengine's checkpoints (NumPy renamed its modules in 2.0)
        (history_type, 'mmengine.logging.history_buffer.HistoryBuffer'),
        *((statistic, f'{module}.getattr') for module in builtins),
        *((lambda: b'', f'{module}.bytes') for module in builtins),  # an empty array is pickled as bytes()
        (PlainArray, 'numpy.ndarray'),
        (PlainDtype, 'numpy.dtype'),
        *((_reconstruct, f'{module}._reconstruct') for module in multiarray),
        *((_scalar, f'{module}.scalar') for module in multiarray),
    ]


def scan(path: Path, allowed: Collection[str]) -> None:
    """Raise an error if a file declares a name outside of PLAIN and `allowed`, or more bytes than it has."""
    for name in _names(path):
        module, _, attribute = name.rpartition('.')
        is_storage = module in ('torch', 'torch.cuda') and attribute.endswith('Storage')
        is_dtype = module == 'torch' and isinstance(getattr(torch, attribute, None), torch.dtype)
        if not (is_storage or is_dtype or name in PLAIN or name in allowed):
            raise pickle.UnpicklingError(f'GLOBAL {name}')


def _names(path: Path) -> Iterator[str]:
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
