"""int8, by onnxruntime's own static quantization after training."""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from .pictures import Pictures

KINDS = ['Conv', 'MatMul', 'Gemm']
"""The operators that are quantized, where one side is a weight; the rest, above all normalization of images, boxes and
suppression, stays in fp32."""


def quantized(content: bytes, pictures: Pictures, size: tuple[int, int] | None = None) -> bytes:
    """An ONNX file with weights of 8 bits, per channel, and activations of 8 bits, calibrated on pictures."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = _single(pictures, size)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {'images': image}

    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it recommends pre-processing, which needs fixed sizes
    try:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder, 'int8.onnx')
            quantize_static(
                onnx.load_model_from_string(content),
                str(target),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=KINDS,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options=dict(MatMulConstBOnly=True, CalibTensorRangeSymmetric=False),
            )
            model = onnx.load(target)
    finally:
        logging.getLogger().setLevel(level)
    before = {each.key: each.value for each in onnx.load_model_from_string(content).metadata_props}
    del model.metadata_props[:]
    for key, value in before.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


def _single(pictures: Pictures, size: tuple[int, int] | None) -> Iterator[np.ndarray]:
    for image in pictures.inputs:
        if size:
            image = next(Pictures([image], pictures.samples, '').batches_of(*size))['inputs'][0]
        yield torch.as_tensor(image).unsqueeze(0).numpy()
