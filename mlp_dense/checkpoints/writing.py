"""Publishing of a checkpoint's weights as a file that others can use."""

import hashlib
import json
from io import BytesIO
from pathlib import Path

import torch

from ..errors import CheckpointError, UserError, explained_imports
from .atomic import write_whole
from .files import is_safetensors
from .reading import Checkpoint, is_plain


def publish(source: str | Path, out: Path, ema: bool = False) -> Path:
    """Write only the weights of a checkpoint, and the names and colours of its classes.

    Tensors keep their names, except a leading ``module.``. Floating-point tensors become float32. Equal weights produce
    equal files. The returned path contains the start of the SHA-256: ``hire-1a2b3c4d.pth`` for ``hire.pth``.

    Args:
        source: File or URL of the checkpoint.
        out: File name that ends in .pth or .safetensors.
        ema: Whether to write the exponential moving average of the weights.

    Raises:
        UserError: The source is unusable or lacks such weights, or the output exists, has another suffix or cannot be
            written.
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
    if is_safetensors(out):
        with explained_imports():
            from safetensors.torch import save
        content = save(weights, dict(dataset_meta=json.dumps(meta)) if meta else None)
    else:
        torch.save(dict(state_dict=weights, meta=dict(dataset_meta=meta) if meta else {}), buffer := BytesIO())
        content = buffer.getvalue()
    final = out.with_name(f'{out.stem}-{hashlib.sha256(content).hexdigest()[:8]}{out.suffix}')
    if final.exists():
        raise UserError(f'{final} exists already, and is not overwritten; delete it or choose another name.')
    write_whole(final, content)
    return final
