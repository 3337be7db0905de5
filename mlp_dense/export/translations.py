"""What the exporter of PyTorch does not translate, or not for every size, in ONNX (opset 20)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnxscript import opset20 as op

from . import operators  # noqa: F401  defines two of them


def remainder(x: Any, divisor: Any) -> Any:
    """``x % divisor`` with a divisor that is known only when the graph runs (PyTorch 2.13 wants a number)."""
    return op.Mod(x, op.CastLike(divisor, x))


def nms_scores(boxes: Any, scores: Any, iou_threshold: float, most: int) -> Any:
    chosen = op.NonMaxSuppression(
        boxes,
        op.Unsqueeze(scores, op.Constant(value_ints=[1])),
        op.Constant(value_ints=[most]),
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[-0.5]),  # -1 is no box
    )
    places = op.Gather(chosen, op.Constant(value_ints=[0, 2]), axis=1)  # image and box, without the class
    nothing = op.Expand(op.Constant(value_float=-1.0), op.Shape(scores))
    return op.ScatterND(nothing, places, op.GatherND(scores, places))


def roi_align_levels(
    maps: Sequence[Any], rois: Any, levels: Any, size: Sequence[int], scales: Sequence[float], ratio: int
) -> Any:
    one = op.Constant(value_ints=[1])
    shape = op.Concat(
        op.Shape(rois, start=0, end=1), op.Shape(maps[0], start=1, end=2), op.Constant(value_ints=list(size)), axis=0
    )
    pooled = op.Expand(op.CastLike(op.Constant(value_float=0.0), maps[0]), shape)
    for level, (own, scale) in enumerate(zip(maps, scales, strict=True)):
        places = op.Transpose(op.NonZero(op.Equal(levels, op.Constant(value_int=level))), perm=[1, 0])  # (n, 1)
        boxes = op.GatherND(rois, places)
        image = op.Cast(op.Squeeze(op.Slice(boxes, op.Constant(value_ints=[0]), one, one), one), to=7)  # int64
        aligned = op.RoiAlign(
            own,
            op.Slice(boxes, one, op.Constant(value_ints=[5]), one),
            image,
            coordinate_transformation_mode='half_pixel',
            output_height=size[0],
            output_width=size[1],
            sampling_ratio=ratio,
            spatial_scale=scale,
        )
        pooled = op.ScatterND(pooled, places, aligned)
    return pooled


def mix_experts(items: Any, gates: Any, chosen: Any, weight1: Any, bias1: Any, weight2: Any, bias2: Any) -> Any:
    """Of a mixture of experts: as in PyTorch, each expert computes only its own items."""
    mixed = op.Mul(items, op.CastLike(op.Constant(value_float=0.0), items))
    for expert in range(weight1.shape[0]):
        number = op.Constant(value_int=expert)

        def own(stacked: Any, number: Any = number) -> Any:
            return op.Gather(stacked, number, axis=0)

        places = op.Transpose(op.NonZero(op.Equal(chosen, number)), perm=[1, 0])  # (n, 2): an item and which choice
        rows = op.Slice(places, op.Constant(value_ints=[0]), op.Constant(value_ints=[1]), op.Constant(value_ints=[1]))
        x = op.GatherND(items, rows)
        x = op.Gelu(op.Add(op.MatMul(x, op.Transpose(own(weight1), perm=[1, 0])), own(bias1)))
        x = op.Add(op.MatMul(x, op.Transpose(own(weight2), perm=[1, 0])), own(bias2))
        share = op.Unsqueeze(op.GatherND(gates, places), op.Constant(value_ints=[1]))
        mixed = op.ScatterND(mixed, rows, op.Mul(x, op.CastLike(share, x)), reduction='add')
    return mixed


def table() -> dict[Any, Callable[..., Any]]:
    """For ``torch.onnx.export(custom_translation_table=...)``."""
    return {
        torch.ops.aten.remainder.Scalar: remainder,
        torch.ops.mlp_dense.nms_scores.default: nms_scores,
        torch.ops.mlp_dense.roi_align_levels.default: roi_align_levels,
        torch.ops.mlp_dense.mix_experts.default: mix_experts,
    }
