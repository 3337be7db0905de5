"""The way of an export: model, graph, file, check, and only then the name that was asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from ..backbones.fusion import fuse
from ..checkpoints.atomic import write_whole
from ..checkpoints.files import local_file, sha256_of
from ..config.reading import leaves, make_folder
from ..errors import UserError
from ..inference.loading import load_model
from ..tasks import task_of
from ..training.run_info import versions
from ..training.setup import EXPORTED
from .check import compare
from .conversion import check_installed, to_onnx, to_pt2, traced
from .files import ExportedFile, as_texts
from .graphs import Graph
from .parts import PARTS, graph_of
from .pictures import Pictures, read_pictures

DTYPES = dict(fp32=torch.float32, fp16=torch.float16, bf16=torch.bfloat16)


def export(
    cfg: Config,
    checkpoint: str | None,
    out: Path,
    part: str = 'model',
    dtype: str = 'fp32',
    size: tuple[int, int] | None = None,
    fused: bool = False,
    int8: bool = False,
    images: Path | None = None,
    say: Callable[[str], None] = print,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Exports a model, or a part of it, and checks the file on pictures before it gets its name.

    Args:
        checkpoint: a file or an address; None exports random weights.
        out: ends in .onnx or .pt2, and does not exist.
        part: ``model``, ``neck`` or ``backbone``.
        dtype: of the network: ``fp32``, ``fp16`` or ``bf16``.
        size: height and width, for a file that takes no others.
        fused: whether norms are folded first (:func:`mlp_dense.fuse`).
        int8: whether onnxruntime quantizes it, calibrated on the pictures.
        images: a folder of pictures to check on; None takes the test data of the config if they are there, else
            generated pictures.
        say: gets each line of what happens.
        advance: is called after each of :func:`steps`.

    Raises:
        UserError: an argument is wrong, the model cannot be exported, or the exported graph is. Nothing is written.
    """
    if out.suffix not in EXPORTED or part not in PARTS:
        raise UserError(f'{out}: the name of an exported model ends in {" or ".join(EXPORTED)}.')
    if out.exists():
        raise UserError(f'{out} exists already, and is not overwritten.')
    if int8 and (dtype != 'fp32' or out.suffix != '.onnx'):
        raise UserError('--int8 goes with .onnx and without --dtype.')
    if dtype == 'bf16' and out.suffix == '.onnx':
        raise UserError('--dtype bf16: onnxruntime has no bf16 on a CPU to check it with; give fp16, or a .pt2 file.')
    if task_of(cfg.default_scope).exported is None:
        raise UserError(f'{cfg.filename} is a classifier; give a config of a detector or segmentor.')
    if out.suffix == '.onnx':
        check_installed()
    make_folder(out.parent)
    model = load_model(cfg, checkpoint, 'cpu')
    pictures = read_pictures(cfg, images, most=64 if int8 else 3)
    if checkpoint is None:
        graph_of(model, part)  # says first whether the model can be exported
        spread_scores(model, pictures)
    graph = graph_of(fuse(model) if fused else model, part, DTYPES[dtype])
    metadata = describe(model, graph, checkpoint, part, 'int8' if int8 else dtype)
    say(f'exporting the {part} of {cfg.filename} (about a minute)')
    program = traced(graph, size)
    advance()
    if out.suffix == '.pt2':
        content = to_pt2(program, as_texts(metadata))
    else:
        content = to_onnx(program, graph, as_texts(metadata))
    del program
    advance()
    pictures_of = f'{min(3, len(pictures.inputs))} of {pictures.origin}'
    say(f'checking it {"in onnxruntime" if out.suffix == ".onnx" else "as a program"}, on {pictures_of}')
    check(model, content, out.suffix, pictures, size, 'fp32' if int8 else dtype, say)
    advance()
    if int8:
        from .quantization import quantized

        say(f'quantizing it, calibrated on {len(pictures.inputs)} of {pictures.origin}')
        content = quantized(content, pictures, size)
        advance()
        check(model, content, out.suffix, pictures, size, 'int8', say)
        advance()
    if out.exists():
        raise UserError(f'{out} exists already, and is not overwritten.')
    write_whole(out, content)
    say(f'{out}, {len(content) / 1e6:.1f} MB')


def steps(int8: bool) -> int:
    """How many an export has: traced, converted, checked; quantized and checked again."""
    return 5 if int8 else 3


def check(
    model: nn.Module,
    content: bytes,
    suffix: str,
    pictures: Pictures,
    size: tuple[int, int] | None,
    precision: str,
    say: Callable[[str], None],
) -> None:
    """UserError: what was exported does not do what the model does."""
    batches = pictures.batches_of(*size) if size else pictures.batches()
    for line in compare(model, ExportedFile(content, suffix), batches, precision):
        say(f'  {precision} {line}')


def describe(model: nn.Module, graph: Graph, checkpoint: str | None, part: str, precision: str) -> dict[str, Any]:
    """What a file says of itself."""
    meta = model.dataset_meta
    return dict(
        outputs=list(graph.outputs),
        task=model.cfg.default_scope,
        part=part,
        precision=precision,
        classes=list(meta['classes']),
        palette=[[int(value) for value in colour] for colour in meta['palette']],
        preprocessing=graph.preprocessing.describe() | dict(resizing=resizing_of(model.cfg)),
        config=model.cfg.pretty_text,
        checkpoint=None if checkpoint is None else Path(checkpoint).name,
        checkpoint_sha256=None if checkpoint is None else sha256_of(local_file(checkpoint)),
        versions=versions('onnx', 'onnxscript', 'onnxruntime'),
    )


def resizing_of(cfg: Config) -> list[dict[str, Any]]:
    """What a test pipeline does to the size of an image before the model gets it: its steps, as far as that matters."""
    steps = next(leaves(cfg.test_dataloader.dataset)).get('pipeline', ())
    keys = ('type', 'scale', 'scale_factor', 'keep_ratio', 'size_divisor')
    return [{key: step[key] for key in keys if key in step} for step in steps if 'Resize' in str(step['type'])]


@torch.no_grad()
def spread_scores(model: nn.Module, pictures: Pictures) -> None:
    """With random weights all places of a picture score the same, and there is nothing to compare: this scales the
    layers that give scores to a standard deviation of 1."""

    def scale(layer: nn.Module, inputs: tuple[Tensor], out: Tensor) -> Tensor:
        handles.pop(layer).remove()
        layer.weight /= out.std().clamp(min=1e-6)
        layer.bias.zero_()
        return layer(*inputs)

    names = ('retina_cls', 'rpn_cls', 'fc_cls', 'conv_cls')
    layers = [module for name, module in model.named_modules() if name.rpartition('.')[2] in names]
    handles = {layer: layer.register_forward_hook(scale) for layer in layers}
    if layers:
        model.test_step(next(pictures.batches()))
