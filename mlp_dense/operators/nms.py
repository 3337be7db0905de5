"""Non-maximum suppression."""

import torch
from torch import Tensor

from . import by_torchvision

BLOCK = 128
"""Boxes that are compared with all others at once. A larger block needs more memory and fewer iterations."""


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Return the indices of the boxes (N, 4) that greedy non-maximum suppression keeps, by descending score.

    A box is kept unless its intersection over union with a kept box of a higher score exceeds the threshold. Boxes with
    equal scores keep their order. `offset` is 1 if x2 and y2 are the last pixels of a box, 0 if they are its border.
    """
    if offset == 0 and by_torchvision(boxes):
        from torchvision.ops import nms

        return nms(boxes, scores.to(boxes.dtype), iou_threshold)
    remaining = scores.argsort(descending=True, stable=True)
    corners = boxes[remaining].unbind(1)
    area = (corners[2] - corners[0] + offset) * (corners[3] - corners[1] + offset)
    columns = torch.stack([*corners, area])  # (5, N) of the remaining boxes
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


def _iou(a: Tensor, b: Tensor, offset: int) -> Tensor:
    """Return the intersections over unions (A, B) of boxes (5, A) with boxes (5, B)."""
    a = a[:, :, None]
    width = (torch.minimum(a[2], b[2]) - torch.maximum(a[0], b[0]) + offset).clamp_(min=0)
    height = (torch.minimum(a[3], b[3]) - torch.maximum(a[1], b[1]) + offset).clamp_(min=0)
    intersection = width.mul_(height)
    return intersection / (a[4] + b[4] - intersection)
