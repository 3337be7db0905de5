"""Conversion of a graph to the content of a file: a program of torch.export, ONNX, or int8 ONNX."""

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np
import torch
from torch.export import Dim, ExportedProgram

from ..errors import NotInstalledError, UserError
from .graphs import Graph

OPSET = 20
PACKAGES = ('onnx', 'onnxscript', 'onnxruntime')
TRACED_SIZE = (288, 352)  # PyTorch treats a size of 1 as a constant; here a map of stride 128 has 2 cells along an axis
QUANTIZED_OPERATORS = ['Conv', 'MatMul', 'Gemm']  # if one input is a weight; all others stay in fp32


def check_installed(*packages: str) -> None:
    """Raise NotInstalledError unless packages of the extra ``export``, by default all, are installed."""
    for package in packages or PACKAGES:
        if not find_spec(package):
            raise NotInstalledError(
                f"{package} is not installed: pip install -e '.[export]' in the folder of mlp_dense."
            )


def trace(graph: Graph, size: tuple[int, int] | None = None) -> ExportedProgram:
    """Return the program of a graph, for any batch of images of one `size` (height, width), or of any size."""
    images = torch.randint(256, (2, 3, *(size or TRACED_SIZE)), dtype=torch.uint8)
    dynamic = dict.fromkeys((0,) if size else (0, 2, 3), Dim.DYNAMIC)
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(graph, (images,), dynamic_shapes=(dynamic,), strict=False)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise UserError(f'PyTorch cannot trace this model: {" ".join(str(error).split())[:300]}') from error


def to_onnx(program: ExportedProgram, graph: Graph, metadata: Mapping[str, str]) -> bytes:
    """Return an ONNX file with its metadata; raise UserError if an operator has no translation."""
    from .onnx_ops import translations

    with torch.no_grad(), _quiet():
        try:
            converted = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=['images'],
                output_names=list(graph.outputs),
                custom_translation_table=translations(),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            cause: BaseException = error
            while cause.__cause__:
                cause = cause.__cause__
            raise UserError(f'PyTorch cannot write this model as ONNX: {" ".join(str(cause).split())[:300]}') from error
    assert converted is not None  # as dynamo=True
    model = converted.model_proto
    del model.graph.value_info[:]  # shapes of the traced images, which onnxruntime would trust
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


def to_pt2(program: ExportedProgram, metadata: Mapping[str, str]) -> bytes:
    """Return a file of ``torch.export``, with each metadata text as an extra file."""
    file = io.BytesIO()
    with _quiet():
        torch.export.save(program, file, extra_files=dict(metadata))
    return file.getvalue()


def to_int8(content: bytes, images: Iterator[np.ndarray]) -> bytes:
    """Quantize weights (per channel) and activations of an ONNX file, calibrated on uint8 images (1, 3, H, W)."""
    import onnx
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(images, None)
            return None if image is None else {'images': image}

    with tempfile.TemporaryDirectory() as folder, _quiet():
        folded, target = f'{folder}/folded.onnx', f'{folder}/int8.onnx'
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = folded  # with the weights that Hire-MLP reorders as constants
        options.log_severity_level = 4
        onnxruntime.InferenceSession(content, options, providers=['CPUExecutionProvider'])
        quantize_static(
            folded,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTIZED_OPERATORS,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options=dict(MatMulConstBOnly=True),
        )
        model = onnx.load(target)
    del model.metadata_props[:]
    model.metadata_props.extend(onnx.load_model_from_string(content).metadata_props)
    return model.SerializeToString()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings of the exporters, which concern their own code."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(level)
