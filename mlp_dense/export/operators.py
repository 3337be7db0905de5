"""Two operators that an exporter cannot look into, since what they select depends on the data: NMS and RoIAlign.

In PyTorch they run as this package's own; ``translations.py`` has the same in ONNX.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..operators.nms import nms
from ..operators.roi_align import roi_align

library = torch.library.Library('mlp_dense', 'FRAGMENT')
library.define('nms_scores(Tensor boxes, Tensor scores, float iou_threshold, int most) -> Tensor')
library.define(
    'roi_align_levels(Tensor[] maps, Tensor rois, Tensor levels, int[] size, float[] scales, int ratio) -> Tensor'
)


def nms_scores(boxes: Tensor, scores: Tensor, iou_threshold: float, most: int) -> Tensor:
    """Non-maximum suppression of each image by itself.

    Args:
        boxes: (B, N, 4), x1, y1, x2, y2.
        scores: (B, N), negative where there is no box.
        iou_threshold: what overlaps a box with a higher score more goes.
        most: how many stay at most.

    Returns:
        (B, N), the scores of those that stay, and -1.
    """
    kept = torch.full_like(scores, -1)
    for own, before, after in zip(boxes, scores, kept, strict=True):
        found = (before >= 0).nonzero().squeeze(1)
        stay = found[nms(own[found], before[found], iou_threshold, 0)[:most]]
        after[stay] = before[stay]
    return kept


def roi_align_levels(
    maps: Sequence[Tensor], rois: Tensor, levels: Tensor, size: Sequence[int], scales: Sequence[float], ratio: int
) -> Tensor:
    """RoIAlign (aligned) of each box on the feature map of its level.

    Args:
        maps: of each level (B, C, H, W).
        rois: (N, 5), the index of an image in the batch and x1, y1, x2, y2 in pixels.
        levels: (N,), indices into the maps.
        size: bins of a box, (rows, columns).
        scales: cells of each map per pixel.
        ratio: samples of a bin along each axis; 0 takes as many as the bin has cells.

    Returns:
        (N, C, *size).
    """
    pooled = maps[0].new_zeros(len(rois), maps[0].shape[1], *size)
    for level, (own, scale) in enumerate(zip(maps, scales, strict=True)):
        chosen = levels == level
        if chosen.any():
            pooled[chosen] = roi_align(own, rois[chosen], size, scale, ratio, True)
    return pooled


def _fake_nms(boxes: Tensor, scores: Tensor, iou_threshold: float, most: int) -> Tensor:
    return torch.empty_like(scores)


def _fake_roi_align(
    maps: Sequence[Tensor], rois: Tensor, levels: Tensor, size: Sequence[int], scales: Sequence[float], ratio: int
) -> Tensor:
    return maps[0].new_empty(rois.shape[0], maps[0].shape[1], *size)


for _name, _compute, _fake in (
    ('nms_scores', nms_scores, _fake_nms),
    ('roi_align_levels', roi_align_levels, _fake_roi_align),
):
    library.impl(_name, _compute, 'CompositeExplicitAutograd')
    torch.library.register_fake(f'mlp_dense::{_name}', _fake, lib=library)
