"""Which graph belongs to a part of a model."""

import torch
from torch import nn

from ..errors import UserError
from .graphs import Graph, PyramidGraph, SegmentorGraph

PARTS = ('model', 'neck', 'backbone')


def graph_of(model: nn.Module, part: str = 'model', dtype: torch.dtype = torch.float32) -> Graph:
    """The module to export for a part of a model that :func:`~mlp_dense.load_model` built. UserError: it has no such
    part, or one that cannot be exported."""
    if part != 'model':
        return PyramidGraph(model, dtype, part).eval()
    if hasattr(model, 'decode_head'):
        return SegmentorGraph(model, dtype).eval()
    if hasattr(model, 'roi_head'):
        from .two_stage import TwoStageGraph  # needs mmdet

        return TwoStageGraph(model, dtype).eval()
    if hasattr(model, 'bbox_head'):
        from .dense_detector import DenseDetectorGraph

        return DenseDetectorGraph(model, dtype).eval()
    raise UserError(f'{type(model).__name__} cannot be exported whole; --part backbone can.')
