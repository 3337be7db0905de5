"""Reads checkpoints: safely (no code in a file is ever run) and loudly (nothing is left out without a word).

Files understood: ``{'state_dict': ...}`` (OpenMMLab, official dense models), ``{'model': ...}`` and
``{'model_ema': ...}`` (official ImageNet models) and plain state dicts, with or without ``module.`` and ``backbone.``
before the names, under the official names or ours.
"""

import pickle
import re
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
import torch
from mmengine.dist import barrier, get_local_rank
from mmengine.logging import HistoryBuffer, print_log
from torch import Tensor

from .errors import CheckpointError

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
        for name in ('argparse.Namespace', 'yacs.config.CfgNode', 'pathlib.PosixPath', 'pathlib.WindowsPath')
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


def read_checkpoint(source: str | Path, map_location: Any = 'cpu') -> dict[str, Any]:
    """Reads a checkpoint file or address as it is, without running anything in it.

    Args:
        source: a path, or an address that begins with http://, https:// or file://; downloads are kept in torch.hub's
            folder.
        map_location: where the tensors go, as in ``torch.load``.

    Raises:
        CheckpointError: the file is missing, damaged, or holds an object of a type that is not allowed.
    """
    path = _local_file(str(source))
    try:
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        text = str(error)
        offender = re.search(r'GLOBAL (\S+)', text) or re.search(
            r'(?:class|function|type) (\S+?)[ ,.\']', text.partition('WeightsUnpickler error')[2]
        )
        if not offender:
            raise CheckpointError(f'{source} cannot be read as a PyTorch checkpoint; is it complete?') from error
        raise CheckpointError(
            f'{source} is refused, since loading it could run code: it holds {offender[1]}, which is neither a tensor '
            'nor a plain container. Use a file from a source you trust, saved as a state dict.'
        ) from error
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f'{source} cannot be read as a PyTorch checkpoint ({reason}); is it complete?') from error
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f'{source} holds a {type(checkpoint).__name__}, not a checkpoint or a state dict.')
    return checkpoint


def weights_of(checkpoint: Mapping[str, Any], source: str | Path) -> dict[str, Tensor]:
    """The state dict inside a checkpoint, whatever it is kept under, without ``module.`` before the names.

    Raises:
        CheckpointError: there are no tensors in it.
    """
    found = next((checkpoint[key] for key in CONTAINERS if isinstance(checkpoint.get(key), Mapping)), checkpoint)
    tensors = {re.sub(r'^module\.', '', key): value for key, value in found.items() if isinstance(value, Tensor)}
    if not tensors:
        keys, containers = ', '.join(map(str, list(checkpoint)[:8])), ' or '.join(CONTAINERS)
        raise CheckpointError(
            f'{source} holds no weights: it should be a state dict or hold one as {containers}, not {keys}.'
        )
    return tensors


def load_pretrained(backbone: torch.nn.Module, source: str | Path, prefix: str | None = None) -> None:
    """Loads pretrained weights into a backbone of this package; logs one line that says what was loaded.

    Args:
        source: a file or an address, see :func:`read_checkpoint`.
        prefix: take only the tensors whose names begin so (``backbone.`` is found without being asked for).

    Raises:
        CheckpointError: the file is unusable or does not fit (see :func:`fit_to_backbone`).
    """
    weights = weights_of(read_checkpoint(source), source)
    if prefix:
        prefix = prefix.rstrip('.') + '.'
        weights = {key[len(prefix) :]: tensor for key, tensor in weights.items() if key.startswith(prefix)}
    state_dict = OrderedDict(weights)
    state_dict._metadata = {'': {'source': str(source)}}  # handed to the backbone by load_state_dict
    backbone.load_state_dict(state_dict)


def fit_to_backbone(backbone: torch.nn.Module, found: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """Renames and reshapes the tensors of a state dict for a backbone, so that they match its own exactly.

    Left out on purpose: the classifier's head and norm, CycleFC's constant offsets, everything that belongs to stages
    or output norms that ``out_indices`` does not select, and everything outside ``backbone.`` in a whole model. Output
    norms that the source lacks keep their present values.

    Args:
        backbone: an :class:`~mlp_dense.backbones.base.MLPBackbone`.
        found: names to tensors; a whole checkpoint is accepted too.
        source: what to call it in the log and in errors.

    Returns:
        A dict with exactly the keys of ``backbone.state_dict()``.

    Raises:
        CheckpointError: nothing matches, a shape differs, or a tensor is missing or left over without a reason.
    """
    own = backbone.state_dict()
    name = type(backbone).__name__
    if not all(isinstance(value, Tensor) for value in found.values()):
        found = weights_of(found, source)
    left_out: dict[str, int] = defaultdict(int)
    if any(key.startswith('backbone.') for key in found):
        left_out['outside the backbone'] = sum(not key.startswith('backbone.') for key in found)
        found = {key.removeprefix('backbone.'): value for key, value in found.items() if key.startswith('backbone.')}

    fitted, left_over, wrong_shape = {}, [], []
    for key, tensor in found.items():
        own_key = _own_name(key, backbone.official_names)
        if own_key is None:
            left_out['CycleFC offsets' if key.endswith('.offset') else 'classifier head and norm'] += 1
        elif own_key in own:
            if _without_ones(tensor.shape) == _without_ones(own[own_key].shape):  # a 1x1 convolution or a linear map
                fitted[own_key] = tensor.reshape(own[own_key].shape)
            else:
                wrong_shape.append(f'{key} {tuple(tensor.shape)} for {tuple(own[own_key].shape)}')
        elif _not_built(own_key, backbone):
            left_out['stages and norms not selected by out_indices and out_norm'] += 1
        else:
            left_over.append(key)

    fresh = {key for key in own if key not in fitted and key.startswith('norms.')}
    uncounted = {
        key for key in own if key not in fitted and key.endswith('.num_batches_tracked')
    }  # absent in old files
    missing = [key for key in own if key not in fitted and key not in fresh | uncounted]

    matched = sum(not key.startswith('norms.') for key in fitted)
    problems = [
        f'{len(items)} {what}: {", ".join(items[:3])}{", ..." if len(items) > 3 else ""}'
        for what, items in (('of another shape', wrong_shape), ('missing', missing), ('left over', left_over))
        if items
    ]
    if problems or not matched:
        head = f'{source} does not fit {name} with {_describe(backbone)}: {matched} of its tensors match'
        raise CheckpointError(f'{"; ".join([head, *problems])}. Is it of this family and arch?')

    report = [f'{name}: loaded {len(fitted)} tensors from {source}']
    report += [f'left out {count} ({what})' for what, count in left_out.items() if count]
    if fresh:
        report.append(f'output norms that start fresh: {", ".join(sorted({key.rpartition(".")[0] for key in fresh}))}')
    print_log('; '.join(report), logger='current')
    return {key: fitted.get(key, value) for key, value in own.items()}


def _own_name(key: str, official_names) -> str | None:
    for pattern, replacement in official_names:
        if replacement is None:
            if re.search(pattern, key):
                return None
        else:
            key = re.sub(pattern, replacement, key)
    return key


def _not_built(key: str, backbone: torch.nn.Module) -> bool:
    if match := re.match(r'stages\.(\d+)\.', key):
        return len(backbone.stages) <= int(match[1]) < len(backbone.arch['depths'])
    match = re.match(r'norms\.(\d+)\.', key)
    return bool(match) and int(match[1]) < len(backbone.arch['depths'])


def _without_ones(shape: torch.Size) -> tuple[int, ...]:
    """(O, I, 1, 1) and (O, I) are the same linear map."""
    return tuple(shape[:2]) if len(shape) == 4 and shape[2:] == (1, 1) else tuple(shape)


def _describe(backbone: torch.nn.Module) -> str:
    return f'depths {tuple(backbone.arch["depths"])} and dims {tuple(backbone.arch["dims"])}'


def _local_file(source: str) -> Path:
    if source.startswith('file://'):
        source = url2pathname(urlparse(source).path)
    if re.match(r'https?://', source):
        path = Path(torch.hub.get_dir()) / 'checkpoints' / source.rpartition('/')[2]
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
