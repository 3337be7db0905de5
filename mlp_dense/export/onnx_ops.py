"""ONNX translations (opset 20) of operators that PyTorch's exporter lacks, or translates for one size only."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnxscript import opset20

from .boxes import library  # noqa: F401  has two of the operators

op: Any = opset20  # its stubs reject the values that its own functions return


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


def translations() -> dict[Any, Callable[..., Any]]:
    """Return the ``custom_translation_table`` of ``torch.onnx.export``."""
    return {
        torch.ops.aten.remainder.Scalar: remainder,
        torch.ops.mlp_dense.nms_scores.default: nms_scores,
        torch.ops.mlp_dense.roi_align_levels.default: roi_align_levels,
        torch.ops.mlp_dense.mix_experts.default: mix_experts,
    }
