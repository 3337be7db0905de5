"""Non-maximum suppression."""

import torch
from torch import Tensor

from .torchvision import by_torchvision

BLOCK = 128
"""Boxes that are compared with all others at once; more take memory, fewer take steps."""


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Greedy non-maximum suppression: a box stays unless it overlaps one that stays and has a higher score.

    Args:
        boxes: (N, 4), x1, y1, x2, y2.
        scores: (N,).
        iou_threshold: what overlaps more goes.
        offset: 1 if x2 and y2 are the last pixels of a box, 0 if they are its border.

    Returns:
        The indices of those that stay, by falling scores; of equal scores the first comes first.
    """
    if offset == 0 and by_torchvision(boxes):
        from torchvision.ops import nms

        return nms(boxes, scores.to(boxes.dtype), iou_threshold)
    rest = scores.argsort(descending=True, stable=True)
    corners = boxes[rest].unbind(1)
    area = (corners[2] - corners[0] + offset) * (corners[3] - corners[1] + offset)
    columns = torch.stack([*corners, area])  # (5, N), of what may still stay
    kept = [rest[:0]]
    while len(rest):
        block = columns[:, :BLOCK]
        covers = (_iou(block, block, offset) > iou_threshold).triu_(1)
        stays, before = torch.ones_like(covers[0]), None
        while before is None or not torch.equal(stays, before):  # what the first i boxes do is right after i rounds
            stays, before = ~(covers & stays[:, None]).any(0), stays
        kept.append(rest[:BLOCK][stays])
        columns, rest = columns[:, BLOCK:], rest[BLOCK:]
        free = ~(_iou(block[:, stays], columns, offset) > iou_threshold).any(0)
        columns, rest = columns[:, free], rest[free]
    return torch.cat(kept)


def _iou(a: Tensor, b: Tensor, offset: int) -> Tensor:
    """(A, B) intersections over unions of (5, A) with (5, B) boxes."""
    a = a[:, :, None]
    width = (torch.minimum(a[2], b[2]) - torch.maximum(a[0], b[0]) + offset).clamp_(min=0)
    height = (torch.minimum(a[3], b[3]) - torch.maximum(a[1], b[1]) + offset).clamp_(min=0)
    inside = width.mul_(height)
    return inside / (a[4] + b[4] - inside)
