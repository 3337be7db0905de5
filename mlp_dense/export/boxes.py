"""Box operations of mmdet on batches, with a fixed number of slots instead of lists of any length.

A slot without a box has the score -1. The boxes that stay, and their order, are as in mmdet. NMS and RoIAlign select by
data, which an exporter cannot trace: they are custom operators, which ``conversion.py`` translates.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from ..operators.nms import nms
from ..operators.roi_align import roi_align

library = torch.library.Library('mlp_dense', 'FRAGMENT')


def nms_scores(boxes: Tensor, scores: Tensor, iou_threshold: float, most: int) -> Tensor:
    """Return the scores (B, N) of the `most` best boxes (B, N, 4) of each image that survive NMS, -1 for all others."""
    kept = torch.full_like(scores, -1)
    for image_boxes, image_scores, image_kept in zip(boxes, scores, kept, strict=True):
        candidates = (image_scores >= 0).nonzero().squeeze(1)
        best = candidates[nms(image_boxes[candidates], image_scores[candidates], iou_threshold, 0)[:most]]
        image_kept[best] = image_scores[best]
    return kept


def roi_align_levels(
    maps: Sequence[Tensor], rois: Tensor, levels: Tensor, size: Sequence[int], scales: Sequence[float], ratio: int
) -> Tensor:
    """Apply RoIAlign (aligned) to boxes `rois` (N, 5), each on the feature map of its level (N,), to (N, C, *size)."""
    pooled = maps[0].new_zeros(len(rois), maps[0].shape[1], *size)
    for level, (level_map, scale) in enumerate(zip(maps, scales, strict=True)):
        selected = levels == level
        if selected.any():
            pooled[selected] = roi_align(level_map, rois[selected], size, scale, ratio, True)
    return pooled


for _compute, _fake in (
    (nms_scores, lambda boxes, scores, *_: torch.empty_like(scores)),
    (roi_align_levels, lambda maps, rois, levels, size, *_: maps[0].new_empty(rois.shape[0], maps[0].shape[1], *size)),
):
    library.define(f'{_compute.__name__}{torch.library.infer_schema(_compute, mutates_args=())}')
    library.impl(_compute.__name__, _compute, 'CompositeExplicitAutograd')
    torch.library.register_fake(f'mlp_dense::{_compute.__name__}', _fake, lib=library)


def check_nms(cfg: Mapping[str, Any], path: str) -> None:
    """Raise UserError unless the ``nms`` at `path` of a config is greedy suppression."""
    unknown = cfg.keys() - {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}
    if cfg.get('type', 'nms') != 'nms' or unknown:
        raise UserError(f"{path}={dict(cfg)} cannot be exported; set it to dict(type='nms', iou_threshold=...).")


def top_scores(scores: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return the best of scores (B, N) in descending order and their indices, (B, most); -1 and 0 in empty slots."""
    scores, index = F.pad(scores, (0, most), value=-1.0).topk(most)
    return scores, torch.where(scores < 0, 0, index)


def gather_rows(values: Tensor, index: Tensor) -> Tensor:
    """Select rows of (B, N, D) by indices (B, K), to (B, K, D)."""
    return values.gather(1, index.unsqueeze(2).expand(-1, -1, values.shape[2]))


def select_candidates(
    head: Any, maps: Sequence[Tensor], size: Sequence[int], most: int, score_thr: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the `most` best boxes of each level with scores above `score_thr`, by a dense head with anchors.

    They are boxes (B, N, 4) clipped to images of `size` (height, width), scores (B, N), classes (B, N), levels (N,).
    """
    all_scores, all_deltas = ([level.float() for level in outputs] for outputs in head(maps))
    sizes = [scores.shape[-2:] for scores in all_scores]
    priors = head.prior_generator.grid_priors(sizes, dtype=torch.float32, device=all_scores[0].device)
    candidates = []
    for level, (scores, deltas, anchors) in enumerate(zip(all_scores, all_deltas, priors, strict=True)):
        scores = scores.permute(0, 2, 3, 1).reshape(scores.shape[0], -1, head.cls_out_channels)
        scores = scores.sigmoid() if head.use_sigmoid_cls else scores.softmax(2)[..., :-1]
        num_classes = scores.shape[2]
        scores, index = top_scores(torch.where(scores > score_thr, scores, -1.0).flatten(1), most)
        position = index // num_classes
        deltas = gather_rows(deltas.permute(0, 2, 3, 1).reshape(scores.shape[0], -1, 4), position)
        boxes = head.bbox_coder.decode(anchors[position.flatten()], deltas.flatten(0, 1), size)
        labels = index - position * num_classes
        candidates.append((boxes.unflatten(0, (-1, most)), scores, labels, torch.full((most,), level)))
    *columns, levels = zip(*candidates, strict=True)
    boxes, scores, labels = (torch.cat(column, 1) for column in columns)
    return boxes, scores, labels, torch.cat(levels)


def suppress(
    boxes: Tensor, scores: Tensor, groups: Tensor, nms_cfg: Mapping[str, Any], most: int, min_size: float = -1
) -> tuple[Tensor, Tensor, Tensor]:
    """Apply NMS to boxes (B, N, 4) with scores (B, N), inside each of `groups` (B, N) or (N,): classes or levels.

    Return the best boxes (B, most, 4), scores and groups (B, most); in empty slots box and score are 0, the group -1.
    Boxes that are not larger than `min_size` pixels are dropped first; a negative size keeps all.
    """
    groups, shifted = groups.expand(scores.shape), boxes
    if min_size >= 0:
        scores = torch.where(((boxes[..., 2:] - boxes[..., :2]) > min_size).all(2), scores, -1.0)
    if not nms_cfg.get('class_agnostic', False):  # separate the groups by an offset, as mmcv does
        extent = torch.where(scores.unsqueeze(2) < 0, 0.0, boxes).amax((1, 2), keepdim=True) + 1
        shifted = boxes + groups.to(boxes.dtype).unsqueeze(2) * extent
    kept = torch.ops.mlp_dense.nms_scores.default(shifted, scores, float(nms_cfg['iou_threshold']), most)
    scores, index = top_scores(kept, most)
    is_empty = scores < 0
    boxes = torch.where(is_empty.unsqueeze(2), 0.0, gather_rows(boxes, index))
    return boxes, scores.clamp(min=0.0), torch.where(is_empty, -1, groups.gather(1, index))
