"""Writes the weights of a checkpoint to a file of their own, ready to be given to others."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, UserError
from .reading import dataset_meta_of, import_safetensors, read_checkpoint, sha256_of, tensors_of, weights_of


def publish(source: str | Path, out: Path, ema: bool = False) -> Path:
    """Writes the weights of a checkpoint, and the names and colours of its classes, and nothing else.

    The names of the tensors stay, but for a leading ``module.``; floating-point tensors become float32.

    Args:
        source: a file or an address, see :func:`~mlp_dense.checkpoints.reading.read_checkpoint`.
        out: a name that ends in .pth or .safetensors; the first 8 digits of the SHA-256 of the file are added to it.
        ema: take the exponential moving average of the weights.

    Returns:
        The path of the file, as ``hire-1a2b3c4d.pth`` for ``hire.pth``. The same weights give the same file.

    Raises:
        CheckpointError: the source is unusable, or has no such weights.
        UserError: the output exists, has another suffix or cannot be written.
    """
    if out.suffix not in ('.pth', '.safetensors'):
        raise UserError(f'{out}: the name of a published file must end in .pth or .safetensors.')
    checkpoint = read_checkpoint(source)
    weights = ema_weights_of(checkpoint, source) if ema else weights_of(checkpoint, source)
    weights = {name: _plain(name, tensor, source) for name, tensor in weights.items()}
    meta = dataset_meta_of(checkpoint, source)
    unfinished = out.with_name(f'.{out.name}.{os.getpid()}')
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open('xb') as file:  # opened here: given a path, PyTorch writes the name of it into the file
            if out.suffix == '.safetensors':
                file.write(
                    import_safetensors().torch.save(weights, dict(dataset_meta=json.dumps(meta)) if meta else None)
                )
            else:
                torch.save(dict(state_dict=weights, meta=dict(dataset_meta=meta) if meta else {}), file)
        final = out.with_name(f'{out.stem}-{sha256_of(unfinished)[:8]}{out.suffix}')
        if final.exists():
            raise UserError(f'{final} exists already, and is not overwritten.')
        unfinished.rename(final)
    except (OSError, RuntimeError) as error:
        raise UserError(f'{out} cannot be written ({error}); give another place.') from error
    finally:
        with suppress(OSError):
            unfinished.unlink()
    return final


def ema_weights_of(checkpoint: Mapping[str, Any], source: str | Path) -> dict[str, Tensor]:
    """The averaged weights: under ``model_ema`` or ``state_dict_ema`` in official files, and under ``state_dict`` in
    those of mmengine, whose EMAHook exchanges them with the trained ones (then under ``ema_state_dict``) when it saves.

    Raises:
        CheckpointError: there are none.
    """
    keys = [
        'model_ema',
        'state_dict_ema',
        *(['state_dict', 'ema_state_dict'] if 'ema_state_dict' in checkpoint else []),
    ]
    for key in keys:
        if isinstance(checkpoint.get(key), Mapping) and (tensors := tensors_of(checkpoint[key])):
            return tensors
    raise CheckpointError(f'{source} holds no EMA weights (model_ema, state_dict_ema, ema_state_dict): omit --ema.')


def _plain(name: str, tensor: Tensor, source: str | Path) -> Tensor:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise CheckpointError(f'{source}: {name} is no plain tensor, but sparse, quantized or without values.')
    tensor = tensor.detach().float() if tensor.is_floating_point() else tensor.detach()
    return tensor.clone(memory_format=torch.contiguous_format)  # of its own: neither shared, nor part of a larger one
