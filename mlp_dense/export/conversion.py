"""From a module to a file: PyTorch's exporter, and its exporter to ONNX."""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from ..errors import NotInstalledError, UserError
from .graphs import Graph

OPSET = 20
PACKAGES = ('onnx', 'onnxscript', 'onnxruntime')
EXAMPLE = (2, 3, 288, 352)
"""Of the traced images: PyTorch takes a size of 1 for a constant, and here the smallest feature map (stride 128) has
more than one cell along each axis."""


def check_installed(*packages: str) -> None:
    """NotInstalledError: one of some packages of the extra ``export``, or of all of them, is missing."""
    for package in packages or PACKAGES:
        if not find_spec(package):
            raise NotInstalledError(
                f"{package} is not installed: pip install -e '.[export]' in the folder of mlp_dense."
            )


def traced(graph: Graph, size: tuple[int, int] | None = None) -> ExportedProgram:
    """The program of a graph, for every batch and image size, or for images of one `size` (height, width). UserError:
    it cannot be traced."""
    images = torch.randint(256, (*EXAMPLE[:2], *(size or EXAMPLE[2:])), dtype=torch.uint8)
    dynamic = {0: Dim.DYNAMIC} if size else {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(graph, (images,), dynamic_shapes=(dynamic,), strict=False)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise UserError(f'PyTorch cannot trace this model: {" ".join(str(error).split())[:300]}') from error


def to_onnx(program: ExportedProgram, graph: Graph, metadata: Mapping[str, str]) -> bytes:
    """An ONNX file with its metadata. UserError: an operator has no translation."""
    from .translations import table

    with torch.no_grad(), _quiet():
        try:
            made = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=['images'],
                output_names=list(graph.outputs),
                custom_translation_table=table(),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise UserError(f'PyTorch cannot write this model as ONNX: {_reason(error)}') from error
    model = made.model_proto
    del model.graph.value_info[:]  # shapes of the example, which onnxruntime would trust
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


def to_pt2(program: ExportedProgram, metadata: Mapping[str, str]) -> bytes:
    """A file of ``torch.export`` with its metadata, each text as an extra file."""
    file = io.BytesIO()
    with _quiet():
        torch.export.save(program, file, extra_files=dict(metadata))
    return file.getvalue()


def _reason(error: BaseException) -> str:
    while error.__cause__:
        error = error.__cause__
    return ' '.join(str(error).split())[:300]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters say of torchvision and of their own code, which nobody can mend."""
    loggers: list[Any] = [logging.getLogger(name) for name in ('torch.onnx', 'torch.export', 'onnxscript', 'onnx_ir')]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
