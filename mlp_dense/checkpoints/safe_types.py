"""Safe types for the objects that checkpoints contain in addition to tensors and containers."""

import math
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np

DTYPES = {np.dtype(name).str[1:]: np.dtype(name) for name in ('?', 'i4', 'i8', 'u1', 'f4', 'f8')}


class Inert:
    """Replacement for objects that official files contain and nobody needs. It becomes a dict."""

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
    """Replacement for ``numpy.ndarray``, whose constructor and state could forge pointers.

    The constructor is refused. The state must contain a shape, an allowed dtype, and the matching number of bytes.
    """

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


def _no_bytes() -> bytes:
    """Return the bytes of an empty array, which is pickled as ``bytes()``."""
    return b''


def _history_type() -> type:
    """Return the replacement for HistoryBuffer, whose state could replace the methods of all buffers."""
    try:
        from mmengine.logging import HistoryBuffer
    except ImportError:
        return Inert

    class History(HistoryBuffer):
        def __setstate__(self, state: Any) -> None:
            log, count, length = (state.get(key) for key in ('_log_history', '_count_history', 'max_length'))
            if not all(isinstance(array, PlainArray) and array.ndim == 1 for array in (log, count)) or (
                len(log) != len(count) or type(length) is not int or length < 1
            ):
                raise pickle.UnpicklingError('GLOBAL mmengine.logging.history_buffer.HistoryBuffer without arrays')
            HistoryBuffer.__init__(self, log, count, length)
            self.__class__ = HistoryBuffer

    return History


def safe_globals() -> list[tuple[Any, str]]:
    """Return pairs (replacement, name in the file) for all types that :func:`torch.load` does not support itself."""
    history_type = _history_type()

    def statistic(owner: Any, name: str) -> None:
        """Allow ``getattr(HistoryBuffer, 'mean')`` alone, as which mmengine pickles HistoryBuffer's statistics."""
        if owner is not history_type or name not in ('min', 'max', 'mean', 'current'):
            raise pickle.UnpicklingError(f'GLOBAL builtins.getattr of {str(name)[:40]!r}')

    paths = (f'{module}.{system}Path' for module in ('pathlib', 'pathlib._local') for system in ('Posix', 'Windows'))
    return [
        # objects in official files that nobody needs (pathlib._local: Python 3.13)
        *((Inert, name) for name in ('argparse.Namespace', 'yacs.config.CfgNode', *paths)),
        # objects in mmengine's checkpoints (NumPy renamed its modules in 2.0)
        (history_type, 'mmengine.logging.history_buffer.HistoryBuffer'),
        (statistic, 'builtins.getattr'),
        (statistic, '__builtin__.getattr'),
        (_no_bytes, 'builtins.bytes'),
        (_no_bytes, '__builtin__.bytes'),
        (PlainArray, 'numpy.ndarray'),
        (PlainDtype, 'numpy.dtype'),
        *(
            (function, f'{package}.multiarray.{name}')
            for function, name in ((_reconstruct, '_reconstruct'), (_scalar, 'scalar'))
            for package in ('numpy.core', 'numpy._core')
        ),
    ]
