"""Export of a model to a file, which gets its name only after it was checked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from ..backbones.fusion import fuse
from ..checkpoints.atomic import write_whole
from ..checkpoints.files import local_file, sha256_of
from ..config.reading import make_folder
from ..datasets.layout import leaves
from ..errors import UserError
from ..inference.loading import load_model
from ..tasks import task_of
from ..training.run_info import versions
from ..training.setup import EXPORTED
from .check import CheckImages, compare, read_check_images
from .conversion import check_installed, to_int8, to_onnx, to_pt2, trace
from .graphs import Graph, PyramidGraph, SegmentorGraph, not_exportable
from .runtime import ExportedFile, as_texts

PARTS = ('model', 'neck', 'backbone')
DTYPES = dict(fp32=torch.float32, fp16=torch.float16, bf16=torch.bfloat16)
NUM_CALIBRATION_IMAGES, NUM_CHECK_IMAGES = 64, 3


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
    report: Callable[[str], None] = print,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Export a model, or a part of it, and check the file before it gets its name.

    The arguments are those of ``tools/export.py --help``; a `checkpoint` of None exports random weights, and `size` is
    (height, width). `report` receives each line of progress; `advance` is called after each of :func:`num_steps`.

    Raises:
        UserError: an argument is invalid, the model cannot be exported, or the check failed. No file is written.
    """
    _check_arguments(cfg, out, part, dtype, int8)
    make_folder(out.parent)
    model = load_model(cfg, checkpoint, 'cpu')
    check_images = read_check_images(cfg, images, NUM_CALIBRATION_IMAGES if int8 else NUM_CHECK_IMAGES)
    if checkpoint is None:
        graph_of(model, part)  # raises before any computation if the model cannot be exported
        spread_scores(model, check_images)
    graph = graph_of(fuse(model) if fused else model, part, DTYPES[dtype])
    metadata = as_texts(describe(model, graph, checkpoint, part, 'int8' if int8 else dtype))

    def check(content: bytes, precision: str) -> None:
        batches = check_images.batches_of(*size) if size else check_images.batches()
        for line in compare(model, ExportedFile(content, out.suffix), batches, precision):
            report(f'  {precision} {line}')
        advance()

    report(f'exporting the {part} of {cfg.filename} (about a minute)')
    program = trace(graph, size)
    advance()
    content = to_pt2(program, metadata) if out.suffix == '.pt2' else to_onnx(program, graph, metadata)
    del program
    advance()
    runtime = 'onnxruntime' if out.suffix == '.onnx' else 'PyTorch'
    number = len(check_images.inputs)
    report(f'checking the file in {runtime}, on {min(NUM_CHECK_IMAGES, number)} of {check_images.origin}')
    check(content, 'fp32' if int8 else dtype)
    if int8:
        report(f'quantizing the file, calibrated on {number} of {check_images.origin}')
        content = to_int8(content, check_images.singles(size))
        advance()
        check(content, 'int8')
    _check_is_new(out)
    write_whole(out, content)
    report(f'{out}, {len(content) / 1e6:.1f} MB')


def graph_of(model: Any, part: str = 'model', dtype: torch.dtype = torch.float32) -> Graph:
    """Return the module to export, for a part of a model that :func:`~mlp_dense.load_model` built.

    Raises:
        UserError: the model has no such part, or the part cannot be exported.
    """
    if part != 'model':
        return PyramidGraph(model, dtype, part).eval()
    if hasattr(model, 'decode_head'):
        return SegmentorGraph(model, dtype).eval()
    if not hasattr(model, 'roi_head') and not hasattr(model, 'bbox_head'):
        raise not_exportable(model)
    from .detectors import DenseDetectorGraph, TwoStageGraph  # needs mmdet

    return (TwoStageGraph if hasattr(model, 'roi_head') else DenseDetectorGraph)(model, dtype).eval()


def num_steps(int8: bool) -> int:
    """Return the number of steps of an export: trace, convert, check; for int8 also quantize and check again."""
    return 5 if int8 else 3


def _check_arguments(cfg: Config, out: Path, part: str, dtype: str, int8: bool) -> None:
    if out.suffix not in EXPORTED:
        raise UserError(f'{out}: use a file name that ends in {" or ".join(EXPORTED)}.')
    if part not in PARTS:
        raise UserError(f'part is {part!r}; use {", ".join(PARTS)}.')
    _check_is_new(out)
    if int8 and (dtype != 'fp32' or out.suffix != '.onnx'):
        raise UserError('--int8 requires an .onnx file and fp32; remove --dtype, or use another file name.')
    if dtype == 'bf16' and out.suffix == '.onnx':
        raise UserError('--dtype bf16: onnxruntime cannot run bf16 on a CPU; use fp16, or a .pt2 file.')
    if task_of(cfg.default_scope).exported is None:
        raise UserError(f'{cfg.filename} is a classifier; use the config of a detector or segmentor.')
    if out.suffix == '.onnx':
        check_installed()


def _check_is_new(out: Path) -> None:
    if out.exists():
        raise UserError(f'{out} exists already and is not overwritten; choose another name.')


def describe(model: Any, graph: Graph, checkpoint: str | None, part: str, precision: str) -> dict[str, Any]:
    """Return the metadata of a file."""
    meta = model.dataset_meta
    return dict(
        outputs=list(graph.outputs),
        task=model.cfg.default_scope,
        part=part,
        precision=precision,
        classes=list(meta['classes']),
        palette=[[int(value) for value in colour] for colour in meta['palette']],
        preprocessing=graph.preprocessing.describe() | dict(resizing=_resizing_of(model.cfg)),
        config=model.cfg.pretty_text,
        checkpoint=None if checkpoint is None else Path(checkpoint).name,
        checkpoint_sha256=None if checkpoint is None else sha256_of(local_file(checkpoint)),
        versions=versions('onnx', 'onnxscript', 'onnxruntime'),
    )


def _resizing_of(cfg: Config) -> list[dict[str, Any]]:
    """Return the resizing transforms of a test pipeline, with the settings that determine the size."""
    transforms = next(leaves(cfg.test_dataloader.dataset)).get('pipeline', ())
    keys = ('type', 'scale', 'scale_factor', 'keep_ratio', 'size_divisor')
    return [{key: step[key] for key in keys if key in step} for step in transforms if 'Resize' in str(step['type'])]


@torch.no_grad()
def spread_scores(model: Any, images: CheckImages) -> None:
    """Scale the score layers of a model with random weights so that their outputs have a standard deviation of 1.

    Otherwise all positions have the same score, and there is nothing to compare.
    """

    def scale(layer: Any, inputs: tuple[Tensor], out: Tensor) -> Tensor:
        handles.pop(layer).remove()
        layer.weight /= out.std().clamp(min=1e-6)
        layer.bias.zero_()
        return layer(*inputs)

    names = ('retina_cls', 'rpn_cls', 'fc_cls', 'conv_cls')
    layers: list[nn.Module] = [m for name, m in model.named_modules() if name.rpartition('.')[2] in names]
    handles = {layer: layer.register_forward_hook(scale) for layer in layers}
    if layers:
        model.test_step(next(images.batches()))
