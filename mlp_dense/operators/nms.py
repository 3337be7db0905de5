"""Non-maximum suppression, soft-NMS, and groups of overlapping boxes."""

import math

import torch
from torch import Tensor

from . import by_torchvision, full_precision

BLOCK = 128
"""Boxes that are compared with all others at once. A larger block needs more memory and fewer iterations."""


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Return the indices of the boxes (N, 4) that greedy non-maximum suppression keeps, by descending score.

    A box is kept unless its intersection over union with a kept box of a higher score exceeds the threshold. Boxes with
    equal scores keep their order. `offset` is 1 if x2 and y2 are the last pixels of a box, 0 if they are its border.
    Areas and intersections are computed at least in float32.
    """
    boxes = full_precision(boxes)
    if offset == 0 and by_torchvision(boxes):
        from torchvision.ops import nms

        return nms(boxes, scores.to(boxes.dtype), iou_threshold)
    remaining = scores.argsort(descending=True, stable=True)
    columns = _columns(boxes[remaining], offset)
    kept = [remaining[:0]]
    while len(remaining):
        block = columns[:, :BLOCK]
        covers = (_iou(block, block, offset) > iou_threshold).triu_(1)
        keep, previous = torch.ones_like(covers[0]), None
        while previous is None or not torch.equal(keep, previous):  # the first i boxes are final after i rounds
            keep, previous = ~(covers & keep[:, None]).any(0), keep
        kept.append(remaining[:BLOCK][keep])
        columns, remaining = columns[:, BLOCK:], remaining[BLOCK:]
        free = ~(_iou(block[:, keep], columns, offset) > iou_threshold).any(0)
        columns, remaining = columns[:, free], remaining[free]
    return torch.cat(kept)


def soft_nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, sigma: float, min_score: float, method: str, offset: int = 0
) -> tuple[Tensor, Tensor]:
    """Return the indices that soft-NMS keeps (https://arxiv.org/abs/1704.04503), best first, and their new scores.

    The scores of all boxes that overlap a better one are multiplied: if the intersection over union is at least the
    threshold, by 0 (`method` naive) or by 1 - IoU (linear), or all of them by exp(-IoU^2 / sigma) (gaussian). Boxes
    below `min_score` are then removed. `offset` is that of :func:`nms`.
    """
    columns, scores = _columns(full_precision(boxes), offset), full_precision(scores).clone()
    remaining = torch.arange(len(boxes), device=boxes.device)
    kept, kept_scores = [remaining[:0]], [scores[:0]]
    while len(remaining):
        best = 0 if scores[0].isnan() else scores.nan_to_num(-math.inf).argmax()  # as comparisons find it
        order = torch.arange(len(remaining), device=boxes.device)
        order[best] = 0  # mmcv swaps the best box with the first one, which decides between equal scores
        order = order[1:]
        kept.append(remaining[best, None])
        kept_scores.append(scores[best, None])
        iou = _iou(columns[:, best, None], columns[:, order], offset)[0]
        others = scores[order]
        if method == 'gaussian':
            others = others * torch.exp(-(iou**2) / sigma)
        else:
            others = torch.where(iou >= iou_threshold, others * (0 if method == 'naive' else 1 - iou), others)
        stay = _compacted(~(others < min_score))
        columns, scores, remaining = columns[:, order[stay]], others[stay], remaining[order[stay]]
    return torch.cat(kept), torch.cat(kept_scores)


def _compacted(keep: Tensor) -> Tensor:
    """Return the indices of the values to keep; those from the end fill the gaps, as in mmcv."""
    count = int(keep.sum())
    order = torch.arange(count, device=keep.device)
    order[~keep[:count]] = (keep[count:].nonzero().squeeze(1) + count).flip(0)
    return order


def nms_match(boxes: Tensor, scores: Tensor, iou_threshold: float) -> list[Tensor]:
    """Return groups of indices: each box that NMS keeps, best first, with those that it suppresses, by their score."""
    remaining = scores.argsort(descending=True, stable=True)
    columns = _columns(full_precision(boxes), 0)[:, remaining]
    groups = []
    while len(remaining):
        covered = (_iou(columns[:, :1], columns, 0) >= iou_threshold)[0]
        covered[0] = True  # a box without an area does not cover itself
        groups.append(remaining[covered])
        columns, remaining = columns[:, ~covered], remaining[~covered]
    return groups


def _columns(boxes: Tensor, offset: int) -> Tensor:
    """Return the corners and areas (5, N) of boxes."""
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([x1, y1, x2, y2, (x2 - x1 + offset) * (y2 - y1 + offset)])


def _iou(a: Tensor, b: Tensor, offset: int) -> Tensor:
    """Return the intersections over unions (A, B) of boxes (5, A) with boxes (5, B)."""
    a = a[:, :, None]
    width = (torch.minimum(a[2], b[2]) - torch.maximum(a[0], b[0]) + offset).clamp_(min=0)
    height = (torch.minimum(a[3], b[3]) - torch.maximum(a[1], b[1]) + offset).clamp_(min=0)
    intersection = width.mul_(height)
    return intersection / (a[4] + b[4] - intersection)
