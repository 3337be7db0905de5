"""Soft-NMS and NMS groups equal loops box by box."""

import math

import pytest
import torch
from mmcv.ops import nms_match, soft_nms
from torch import Tensor

from support.boxes import clustered_boxes
from support.operators import DTYPES, strided


def overlap(a: Tensor, b: Tensor, offset: int) -> float:
    low, high = torch.maximum(a[:2], b[:2]), torch.minimum(a[2:], b[2:])
    intersection = (high - low + offset).clamp(min=0).prod()
    areas = [(box[2:] - box[:2] + offset).prod() for box in (a, b)]
    return (intersection / (areas[0] + areas[1] - intersection)).item()


def soft_nms_by_loop(boxes, scores, threshold, sigma, min_score, method, offset):
    """Return the kept indices and their scores, with swaps in one list as in mmcv."""
    entries = [[i, score] for i, score in enumerate(scores.tolist())]
    i = 0
    while i < len(entries):
        best = i
        for j in range(i + 1, len(entries)):
            best = j if entries[j][1] > entries[best][1] else best
        entries[i], entries[best] = entries[best], entries[i]
        j = i + 1
        while j < len(entries):
            iou = overlap(boxes[entries[i][0]], boxes[entries[j][0]], offset)
            weights = dict(naive=0, linear=1 - iou, gaussian=math.exp(-iou * iou / sigma))
            entries[j][1] *= weights[method] if method == 'gaussian' or iou >= threshold else 1
            if entries[j][1] < min_score:
                entries[j] = entries[-1]
                del entries[-1]
            else:
                j += 1
        i += 1
    return [index for index, _ in entries], [score for _, score in entries]


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_nms_equals_the_loop(method, offset, dtype, fallback):
    """Some scores are equal, some boxes have no area, and areas exceed the range of float16."""
    boxes, scores = clustered_boxes(60, seed=2, quantum=8)
    boxes = torch.cat([3 * boxes, boxes[:3, [0, 1, 0, 1]] - 900]).to(dtype)
    scores = torch.cat([(scores * 20).round() / 20, torch.tensor([0.5, 0.25, 0.001])]).to(dtype)
    arguments = 0.3, 0.5, 0.05, method, offset
    expected, expected_scores = soft_nms_by_loop(boxes.double(), scores.double(), *arguments)
    dets, kept = soft_nms(strided(boxes), strided(scores), *arguments)
    assert kept.tolist() == expected and torch.equal(dets[:, :4], boxes[kept])
    expected_scores = torch.tensor(expected_scores, dtype=torch.float64)
    torch.testing.assert_close(dets[:, 4].double(), expected_scores, rtol=0, atol=2e-3, equal_nan=True)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_nms_match_equals_the_loop(dtype, fallback):
    boxes, scores = clustered_boxes(80, seed=5)
    dets = torch.cat([3 * boxes, scores[:, None]], 1)
    dets = torch.cat([dets, dets[:2, [0, 1, 0, 1, 4]]]).to(dtype)  # two boxes without an area
    remaining, expected = dets[:, 4].float().argsort(descending=True, stable=True).tolist(), []
    exact = dets.double()
    while remaining:
        best = exact[remaining[0], :4]
        group = [i for i in remaining[1:] if overlap(best, exact[i, :4], 0) >= 0.5]
        expected.append([remaining[0], *group])
        remaining = [i for i in remaining[1:] if i not in group]
    assert [group.tolist() for group in nms_match(strided(dets), 0.5)] == expected and len(expected) < 60


def test_soft_nms_and_groups_of_no_boxes_are_empty(fallback):
    dets, kept = soft_nms(torch.zeros(0, 4), torch.zeros(0))
    assert dets.shape == (0, 5) and kept.shape == (0,) and nms_match(torch.zeros(0, 5), 0.5) == []
