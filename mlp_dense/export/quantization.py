"""int8, by onnxruntime's own static quantization after training."""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .pictures import Pictures

KINDS = ['Conv', 'MatMul', 'Gemm']
"""The operators that are quantized, where one side is a weight; the rest, above all normalization of images, boxes and
suppression, stays in fp32."""


def quantized(content: bytes, pictures: Pictures, size: tuple[int, int] | None = None) -> bytes:
    """An ONNX file with weights of 8 bits, per channel, and activations of 8 bits, calibrated on pictures: as they are,
    or of one `size` (height, width)."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = _single(pictures, size)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {'images': image}

    logger = logging.getLogger()  # which it warns by
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            folded, target = Path(folder, 'folded.onnx'), Path(folder, 'int8.onnx')
            _fold_constants(content, folded)
            quantize_static(
                str(folded),
                str(target),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=KINDS,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options=dict(MatMulConstBOnly=True),
            )
            model = onnx.load(target)
    finally:
        logger.setLevel(level)
    del model.metadata_props[:]
    model.metadata_props.extend(onnx.load_model_from_string(content).metadata_props)
    return model.SerializeToString()


def _fold_constants(content: bytes, target: Path) -> None:
    """Writes a graph in which the weights that Hire-MLP reorders are weights again: only those are quantized."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(content, options, providers=['CPUExecutionProvider'])


def _single(pictures: Pictures, size: tuple[int, int] | None) -> Iterator[np.ndarray]:
    for image in pictures.inputs:
        if size:
            image = next(Pictures([image], pictures.samples, '').batches_of(*size))['inputs'][0]
        yield image.unsqueeze(0).numpy()
