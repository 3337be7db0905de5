"""What mmdet does with the boxes of one image and lists of any length, for a batch and with fixed numbers of places.

A place without a box has the score -1. Which boxes stay, and in which order, is as in mmdet.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError


def check_nms(cfg: Mapping[str, Any], where: str) -> None:
    """UserError: an ``nms`` of a test_cfg is not the plain one."""
    unknown = cfg.keys() - {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}
    if cfg.get('type', 'nms') != 'nms' or unknown:
        raise UserError(f"{where} is {dict(cfg)}; only dict(type='nms', iou_threshold=...) can be exported.")


def best(scores: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The highest of scores (B, N) and their indices, (B, most) each, by falling scores; -1 and 0 where none is."""
    scores, index = F.pad(scores, (0, most), value=-1.0).topk(most)
    return scores, torch.where(scores < 0, 0, index)


def rows_of(values: Tensor, index: Tensor) -> Tensor:
    """(B, N, D) and indices (B, K) to (B, K, D)."""
    return values.gather(1, index.unsqueeze(2).expand(-1, -1, values.shape[2]))


def candidates(
    head: nn.Module, maps: Sequence[Tensor], size: Sequence[int], most: int, score_thr: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a dense head of mmdet finds: of each level the `most` best scores above `score_thr`.

    Args:
        head: with anchors.
        maps: its inputs.
        size: (height, width) of the images; boxes end there.

    Returns:
        boxes (B, N, 4), scores (B, N), classes (B, N), levels (N,); N is `most` times the number of levels.
    """
    all_scores, all_deltas = ([each.float() for each in outs] for outs in head(maps))
    sizes = [each.shape[-2:] for each in all_scores]
    priors = head.prior_generator.grid_priors(sizes, dtype=torch.float32, device=all_scores[0].device)
    found: list[tuple[Tensor, ...]] = []
    for level, (scores, deltas, own) in enumerate(zip(all_scores, all_deltas, priors, strict=True)):
        batch, classes = scores.shape[0], head.cls_out_channels
        scores = scores.permute(0, 2, 3, 1).reshape(batch, -1, classes)
        scores = scores.sigmoid() if head.use_sigmoid_cls else scores.softmax(2)[..., :-1]
        classes = scores.shape[2]
        scores = scores.flatten(1)
        scores, index = best(torch.where(scores > score_thr, scores, -1.0), most)
        place = index // classes
        deltas = rows_of(deltas.permute(0, 2, 3, 1).reshape(batch, -1, 4), place)
        boxes = decoded(head.bbox_coder, own[place.flatten()], deltas.flatten(0, 1), size)
        found.append((boxes.unflatten(0, (-1, most)), scores, index - place * classes, torch.full((most,), level)))
    boxes, scores, labels, levels = zip(*found, strict=True)
    return torch.cat(boxes, 1), torch.cat(scores, 1), torch.cat(labels, 1), torch.cat(levels)


def decoded(coder: nn.Module, boxes: Tensor, deltas: Tensor, size: Sequence[int]) -> Tensor:
    """(N, 4) boxes, moved by (N, 4) deltas and cut off at the border of images of a size (height, width)."""
    boxes = coder.decode(boxes, deltas, max_shape=None)
    if not coder.clip_border:
        return boxes
    height, width = size
    x, y = boxes.unflatten(1, (2, 2)).unbind(2)
    return torch.stack([x.clamp(0, width), y.clamp(0, height)], 2).flatten(1)


def not_suppressed(
    boxes: Tensor, scores: Tensor, groups: Tensor, nms: Mapping[str, Any], most: int, min_size: float = -1
) -> tuple[Tensor, Tensor]:
    """Non-maximum suppression inside each group (a class, a level) of boxes that are larger than `min_size` pixels.

    Args:
        boxes: (B, N, 4).
        scores: (B, N).
        groups: (B, N) or (N,).
        nms: as in a test_cfg.

    Returns:
        (B, most), the best scores and their indices.
    """
    if min_size >= 0:
        scores = torch.where(((boxes[..., 2:] - boxes[..., :2]) > min_size).all(2), scores, -1.0)
    apart = boxes
    if not nms.get('class_agnostic', False):  # groups are moved apart, as mmcv does it
        extent = torch.where(scores.unsqueeze(2) < 0, 0.0, boxes).amax((1, 2), keepdim=True) + 1
        apart = boxes + groups.to(boxes.dtype).unsqueeze(-1) * extent
    kept = torch.ops.mlp_dense.nms_scores.default(apart, scores, float(nms['iou_threshold']), most)
    return best(kept, most)
