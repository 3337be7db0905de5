"""Export of a model to a file, which gets its name only after it was checked."""

import json
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from ..backbones.fusion import fuse
from ..checkpoints.atomic import write_whole
from ..checkpoints.files import local_file, sha256_of
from ..errors import UserError, counted, explained_imports
from ..inference import load_model, test_data
from ..outputs import make_folder
from ..tasks import task_of
from ..training.machine import versions
from ..training.setup import EXPORTED
from .check import CheckImages, compare, read_check_images
from .graphs import Graph, PyramidGraph, not_exportable, to_pt2, trace
from .runtime import ExportedFile

DTYPES = dict(fp32=torch.float32, fp16=torch.float16, bf16=torch.bfloat16)
NUM_CALIBRATION_IMAGES, NUM_CHECK_IMAGES = 64, 3


def export(
    cfg: Config,
    checkpoint: str | None,
    out: Path,
    *,
    part: str,
    dtype: str,
    size: tuple[int, int] | None,
    fused: bool,
    int8: bool,
    images: Path | None,
) -> None:
    """Export a model, or a part of it, and check the file before it gets its name.

    The arguments are those of ``tools/export.py --help``; a `checkpoint` of None exports random weights, and `size` is
    (height, width). Raise UserError if an argument is invalid, the model cannot be exported, or the check failed.
    """
    _check_arguments(cfg, out, dtype, int8)
    if out.suffix == '.onnx':
        with explained_imports():
            from .conversion import to_int8, to_onnx
    make_folder(out.parent)
    model = load_model(cfg, checkpoint, 'cpu')
    check_images = read_check_images(cfg, images, NUM_CALIBRATION_IMAGES if int8 else NUM_CHECK_IMAGES)
    if checkpoint is None:
        graph_of(model, part)  # raises before any computation if the model cannot be exported
        spread_scores(model, check_images)
    graph = graph_of(fuse(model) if fused else model, part, DTYPES[dtype])
    metadata = describe(model, graph, checkpoint, part, 'int8' if int8 else dtype)

    def check(content: bytes, precision: str) -> None:
        for line in compare(model, ExportedFile(content, out.suffix), check_images.batches(size), precision):
            print(f'  {precision} {line}')

    print(f'exporting the {part} of {cfg.filename} (about a minute)')
    program = trace(graph, size)
    content = to_pt2(program, metadata) if out.suffix == '.pt2' else to_onnx(program, graph, metadata)
    del program
    runtime, number = 'onnxruntime' if out.suffix == '.onnx' else 'PyTorch', len(check_images.inputs)
    print(
        f'checking the file in {runtime}, on {counted(min(NUM_CHECK_IMAGES, number), "image")} of {check_images.origin}'
    )
    check(content, 'fp32' if int8 else dtype)
    if int8:
        print(f'quantizing the file, calibrated on {counted(number, "image")} of {check_images.origin}')
        content = to_int8(content, check_images.resized(size))
        check(content, 'int8')
    write_whole(out, content)
    print(f'{out}, {len(content) / 1e6:.1f} MB')


def graph_of(model: Any, part: str = 'model', dtype: torch.dtype = torch.float32) -> Graph:
    """Return the module to export, for a part of a model that :func:`~mlp_dense.load_model` built."""
    if part != 'model':
        return PyramidGraph(model, dtype, part).eval()
    if hasattr(model, 'decode_head'):
        from .segmentors import SegmentorGraph  # needs mmsegmentation

        return SegmentorGraph(model, dtype).eval()
    if not hasattr(model, 'roi_head') and not hasattr(model, 'bbox_head'):
        raise not_exportable(model)
    from .detectors import DenseDetectorGraph, TwoStageGraph  # needs mmdet

    return (TwoStageGraph if hasattr(model, 'roi_head') else DenseDetectorGraph)(model, dtype).eval()


def _check_arguments(cfg: Config, out: Path, dtype: str, int8: bool) -> None:
    if out.suffix not in EXPORTED:
        raise UserError(f'{out}: use a file name that ends in {" or ".join(EXPORTED)}.')
    if out.exists():
        raise UserError(f'{out} exists already and is not overwritten; choose another name.')
    if int8 and (dtype != 'fp32' or out.suffix != '.onnx'):
        raise UserError('--int8 requires an .onnx file and fp32; remove --dtype, or use another file name.')
    if dtype == 'bf16' and out.suffix == '.onnx':
        raise UserError('--dtype bf16: onnxruntime cannot run bf16 on a CPU; use fp16, or a .pt2 file.')
    if task_of(cfg.default_scope).exported is None:
        raise UserError(f'{cfg.filename} is a classifier; use the config of a detector or segmentor.')


def describe(model: Any, graph: Graph, checkpoint: str | None, part: str, precision: str) -> dict[str, str]:
    """Return the metadata of a file, each value as JSON."""
    meta, keys = model.dataset_meta, ('type', 'scale', 'scale_factor', 'keep_ratio', 'size_divisor')
    transforms = test_data(model.cfg).get('pipeline', ())
    metadata = dict(
        outputs=graph.outputs,
        task=model.cfg.default_scope,
        part=part,
        precision=precision,
        classes=meta['classes'],
        palette=[[int(value) for value in colour] for colour in meta['palette']],
        preprocessing=dict(
            images=graph.images,
            in_graph=graph.preprocessing,
            resizing=[{key: t[key] for key in keys if key in t} for t in transforms if 'Resize' in str(t['type'])],
        ),
        config=model.cfg.pretty_text,
        checkpoint=None if checkpoint is None else Path(checkpoint).name,
        checkpoint_sha256=None if checkpoint is None else sha256_of(local_file(checkpoint)),
        versions=versions('onnx', 'onnxscript', 'onnxruntime'),
    )
    return {key: json.dumps(value) for key, value in metadata.items()}


@torch.no_grad()
def spread_scores(model: Any, images: CheckImages) -> None:
    """Scale the score layers of random weights to outputs of standard deviation 1; else there are no objects."""

    def scale(layer: Any, inputs: tuple[Tensor], out: Tensor) -> Tensor:
        handles.pop(layer).remove()
        layer.weight /= out.std().clamp(min=1e-6)
        layer.bias.zero_()
        return layer(*inputs)

    names = ('retina_cls', 'rpn_cls', 'fc_cls', 'conv_cls')
    layers = [module for name, module in model.named_modules() if name.rpartition('.')[2] in names]
    handles = {layer: layer.register_forward_hook(scale) for layer in layers}
    if layers:
        model.test_step(next(images.batches()))
