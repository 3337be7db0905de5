"""Publishing of a checkpoint's weights as a file that others can use."""

import json
import os
from contextlib import suppress
from pathlib import Path

import torch

from ..errors import CheckpointError, UserError
from .files import import_safetensors, is_safetensors, sha256_of
from .reading import Checkpoint, is_plain


def publish(source: str | Path, out: Path, ema: bool = False) -> Path:
    """Write only the weights of a checkpoint, and the names and colours of its classes.

    Tensors keep their names, except a leading ``module.``. Floating-point tensors become float32.

    Args:
        source: File or URL of the checkpoint.
        out: File name that ends in .pth or .safetensors.
        ema: Whether to write the exponential moving average of the weights.

    Returns:
        The path, which contains the start of the file's SHA-256: ``hire-1a2b3c4d.pth`` for ``hire.pth``. Equal weights
        produce equal files.

    Raises:
        CheckpointError: The source is unusable or does not contain such weights.
        UserError: The output exists, has another suffix or cannot be written.
    """
    if out.suffix != '.pth' and not is_safetensors(out):
        raise UserError(f'{out}: the name of a published file must end in .pth or .safetensors.')
    checkpoint = Checkpoint.read(source)
    weights, meta = checkpoint.ema_weights if ema else checkpoint.weights, checkpoint.dataset_meta
    for name, tensor in weights.items():
        if not is_plain(tensor):
            raise CheckpointError(f'{source}: {name} is sparse, quantized or without values; use a dense checkpoint.')
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f'{source}: {name} holds NaN or infinity; publish an earlier checkpoint.')
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        # a copy: a view would save the complete tensor that it belongs to
        weights[name] = tensor.detach().to(dtype, copy=True, memory_format=torch.contiguous_format)
    unfinished = out.with_name(f'.{out.name}.{os.getpid()}')
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open('xb') as file:  # PyTorch would write the name of a path into the file
            if is_safetensors(out):
                texts = dict(dataset_meta=json.dumps(meta)) if meta else None
                file.write(import_safetensors().torch.save(weights, texts))
            else:
                torch.save(dict(state_dict=weights, meta=dict(dataset_meta=meta) if meta else {}), file)
        final = out.with_name(f'{out.stem}-{sha256_of(unfinished)[:8]}{out.suffix}')
        if final.exists():
            raise UserError(f'{final} exists already, and is not overwritten; delete it or choose another name.')
        unfinished.rename(final)
    except (OSError, RuntimeError) as error:
        raise UserError(f'{out} cannot be written ({error}); choose another folder.') from error
    finally:
        with suppress(OSError):
            unfinished.unlink()
    return final
