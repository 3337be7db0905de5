"""Conversion of a program of torch.export to ONNX and to int8, by the packages of the extra ``export``.

Operators that PyTorch's exporter lacks, or translates for one size only, are translated here.
"""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxscript import opset20
from torch import Tensor
from torch.export import ExportedProgram

from .graphs import Graph, quiet
from .runtime import explained

op: Any = opset20  # its stubs reject the values that its own functions return
QUANTIZED_OPERATORS = ['Conv', 'MatMul', 'Gemm']  # if one input is a weight; all others stay in fp32


def remainder(x: Any, divisor: Any) -> Any:
    """Translate ``x % divisor``; PyTorch 2.13 requires a constant divisor."""
    return op.Mod(x, op.CastLike(divisor, x))


def nms_scores(boxes: Any, scores: Any, iou_threshold: float, most: int) -> Any:
    """Translate :func:`.boxes.nms_scores`."""
    selected = op.NonMaxSuppression(
        boxes,
        op.Unsqueeze(scores, op.Constant(value_ints=[1])),
        op.Constant(value_ints=[most]),
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[-0.5]),  # slots without a box have the score -1
    )
    slots = op.Gather(selected, op.Constant(value_ints=[0, 2]), axis=1)  # image and box, without the class
    nothing = op.Expand(op.Constant(value_float=-1.0), op.Shape(scores))
    return op.ScatterND(nothing, slots, op.GatherND(scores, slots))


def roi_align_levels(
    maps: Sequence[Any], rois: Any, levels: Any, size: Sequence[int], scales: Sequence[float], ratio: int
) -> Any:
    """Translate :func:`.boxes.roi_align_levels`."""
    one = op.Constant(value_ints=[1])
    number, channels = op.Shape(rois, start=0, end=1), op.Shape(maps[0], start=1, end=2)
    shape = op.Concat(number, channels, op.Constant(value_ints=list(size)), axis=0)
    pooled = op.Expand(op.CastLike(op.Constant(value_float=0.0), maps[0]), shape)
    for level, (level_map, scale) in enumerate(zip(maps, scales, strict=True)):
        rows = op.Transpose(op.NonZero(op.Equal(levels, op.Constant(value_int=level))), perm=[1, 0])  # (n, 1)
        level_rois = op.GatherND(rois, rows)
        image = op.Cast(op.Squeeze(op.Slice(level_rois, op.Constant(value_ints=[0]), one, one), one), to=7)  # int64
        aligned = op.RoiAlign(
            level_map,
            op.Slice(level_rois, one, op.Constant(value_ints=[5]), one),
            image,
            coordinate_transformation_mode='half_pixel',
            **dict(output_height=size[0], output_width=size[1], sampling_ratio=ratio, spatial_scale=scale),
        )
        pooled = op.ScatterND(pooled, rows, aligned)
    return pooled


def mix_experts(items: Any, gates: Any, chosen: Any, weight1: Any, bias1: Any, weight2: Any, bias2: Any) -> Any:
    """Translate the mixture of experts: each expert computes only its own items, as in PyTorch."""
    mixed = op.Mul(items, op.CastLike(op.Constant(value_float=0.0), items))
    for expert in range(weight1.shape[0]):
        number = op.Constant(value_int=expert)
        w1, b1, w2, b2 = (op.Gather(stacked, number, axis=0) for stacked in (weight1, bias1, weight2, bias2))
        choices = op.Transpose(op.NonZero(op.Equal(chosen, number)), perm=[1, 0])  # (n, 2): item, index of its choice
        rows = op.Slice(choices, op.Constant(value_ints=[0]), op.Constant(value_ints=[1]), op.Constant(value_ints=[1]))
        x = op.Gelu(op.Add(op.MatMul(op.GatherND(items, rows), op.Transpose(w1, perm=[1, 0])), b1))
        x = op.Add(op.MatMul(x, op.Transpose(w2, perm=[1, 0])), b2)
        gate = op.Unsqueeze(op.GatherND(gates, choices), op.Constant(value_ints=[1]))
        mixed = op.ScatterND(mixed, rows, op.Mul(x, op.CastLike(gate, x)), reduction='add')
    return mixed


TRANSLATIONS: dict[Any, Any] = {
    torch.ops.aten.remainder.Scalar: remainder,
    torch.ops.mlp_dense.nms_scores.default: nms_scores,
    torch.ops.mlp_dense.roi_align_levels.default: roi_align_levels,
    torch.ops.mlp_dense.mix_experts.default: mix_experts,
}


def to_onnx(program: ExportedProgram, graph: Graph, metadata: Mapping[str, str]) -> bytes:
    """Return an ONNX file with its metadata; raise UserError if an operator has no translation."""
    with explained('PyTorch cannot write this model as ONNX'), torch.no_grad(), quiet():
        converted = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=op.version,
            input_names=['images'],
            output_names=list(graph.outputs),
            custom_translation_table=TRANSLATIONS,
            verbose=False,
        )
    assert converted is not None  # as dynamo=True
    model = converted.model_proto
    del model.graph.value_info[:]  # shapes of the traced images, which onnxruntime would trust
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


def to_int8(content: bytes, images: Iterable[Tensor]) -> bytes:
    """Quantize weights (per channel) and activations of an ONNX file, calibrated on images (C, H, W)."""

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(batches, None)

    batches = ({'images': image.unsqueeze(0).numpy()} for image in images)
    with tempfile.TemporaryDirectory() as folder, quiet():
        source, folded, target = (f'{folder}/{name}.onnx' for name in ('source', 'folded', 'int8'))
        Path(source).write_bytes(content)
        # makes constants of the weights that Hire-MLP reorders
        quant_pre_process(source, folded, skip_onnx_shape=True, skip_symbolic_shape=True)
        quantize_static(
            folded,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTIZED_OPERATORS,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,  # CPUs without VNNI instructions add 8-bit products in 16 bits, which overflow
            extra_options=dict(MatMulConstBOnly=True),
        )
        model = onnx.load(target)
    del model.metadata_props[:]
    model.metadata_props.extend(onnx.load_model_from_string(content).metadata_props)
    return model.SerializeToString()
