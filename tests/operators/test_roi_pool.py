"""Maxima of boxes: RoIPool, RoIAlign with pool_mode='max' and BorderAlign equal loops over all samples."""

import math
from itertools import product

import pytest
import torch
from mmcv.ops import BorderAlign, RoIAlign, RoIPool
from torch import Tensor

from mlp_dense.operators import roi_align as our_roi_align
from mlp_dense.operators.border_align import border_align
from mlp_dense.operators.roi_align import roi_align_max
from mlp_dense.operators.roi_pool import roi_pool
from support.boxes import ROIS
from support.operators import DTYPES, assert_equals_loop


def sample(cells: Tensor, y: float, x: float) -> Tensor:
    """Return the bilinear sample (C,) of cells (C, H, W), with mmcv's rule for its border."""
    height, width = cells.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0 * cells[:, 0, 0]
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    corners = product({int(y), min(int(y) + 1, height - 1)}, {int(x), min(int(x) + 1, width - 1)})
    return sum((1 - abs(y - row)) * (1 - abs(x - column)) * cells[:, row, column] for row, column in corners)


def first_greatest(samples: list[Tensor]) -> Tensor:
    """Return the greatest of samples (C,) by channel; the first of equal ones has the gradient."""
    greatest = samples[0]
    for values in samples[1:]:
        greatest = torch.where(values > greatest, values, greatest)
    return greatest


def pooled_by_loop(x: Tensor, rois: Tensor, size: tuple[int, int], scale: float) -> Tensor:
    output = []
    for image, x1, y1, x2, y2 in rois.tolist():
        x1, y1, x2, y2 = x1 * scale, y1 * scale, (x2 + 1) * scale, (y2 + 1) * scale
        for i, j in product(*map(range, size)):
            rows, columns = (
                range(max(math.floor(start + k * step), 0), min(math.ceil(start + (k + 1) * step), cells))
                for start, step, k, cells in (
                    (y1, (y2 - y1) / size[0], i, x.shape[2]),
                    (x1, (x2 - x1) / size[1], j, x.shape[3]),
                )
            )
            cells = [x[int(image), :, row, column] for row in rows for column in columns]
            output.append(first_greatest(cells) if cells and x2 > x1 and y2 > y1 else 0 * x[0, :, 0, 0])
    return torch.stack(output).view(len(rois), *size, -1).permute(0, 3, 1, 2)


def aligned_by_loop(x: Tensor, rois: Tensor, size: tuple[int, int], scale: float, ratio: int) -> Tensor:
    output = []
    for image, *corners in rois.tolist():
        x1, y1, x2, y2 = (corner * scale - 0.5 for corner in corners)
        steps = (y2 - y1) / size[0], (x2 - x1) / size[1]
        counts = [ratio or math.ceil(step) for step in steps]
        for i, j in product(*map(range, size)):
            points = [
                (y1 + steps[0] * (i + (a + 0.5) / counts[0]), x1 + steps[1] * (j + (b + 0.5) / counts[1]))
                for a, b in product(*map(range, counts))
            ]
            samples = [sample(x[int(image)], *point) for point in points]
            output.append(first_greatest(samples) if samples else 0 * x[0, :, 0, 0])
    return torch.stack(output).view(len(rois), *size, -1).permute(0, 3, 1, 2)


def borders_by_loop(x: Tensor, boxes: Tensor, pool_size: int) -> Tensor:
    output = []
    for cells, of_image in zip(x.unflatten(1, (4, -1)), boxes.tolist(), strict=True):
        for x1, y1, x2, y2 in of_image:
            w, h = (x2 - x1) / pool_size, (y2 - y1) / pool_size
            lines = ((y1, x1, 0, w), (y1, x1, h, 0), (y2, x2, 0, -w), (y2, x2, -h, 0))
            for border, (y, x_, dy, dx) in zip(cells, lines, strict=True):
                points = [sample(border, y + k * dy, x_ + k * dx) for k in range(pool_size + 1)]
                output.append(first_greatest(points))
    return torch.stack(output).view(*boxes.shape[:2], 4, -1).permute(0, 3, 1, 2)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_roi_pool_equals_the_loop(dtype, fallback):
    """Many cells are equal, as after a ReLU."""
    x = (3 * torch.randn(2, 3, 16, 20)).round().clamp(min=0)
    rois = ROIS.to(dtype)
    assert_equals_loop(
        lambda x: RoIPool((3, 2), 0.125)(x, rois), lambda x: pooled_by_loop(x, rois, (3, 2), 0.125), dtype, x
    )


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('entries', [2**22, 100])
def test_maximum_of_roi_align_equals_the_loop(entries, ratio, dtype, fallback, monkeypatch):
    monkeypatch.setattr(our_roi_align, 'ENTRIES', entries)
    x, rois = torch.randn(2, 3, 16, 20), ROIS.to(dtype)
    assert_equals_loop(
        lambda x: RoIAlign((3, 2), 0.125, ratio, 'max')(x, rois),
        lambda x: aligned_by_loop(x, rois, (3, 2), 0.125, ratio),
        dtype,
        x,
    )


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_border_align_equals_the_loop(dtype, fallback):
    boxes = torch.tensor(
        [[[0, 0, 3, 2], [-4, 1, 2.5, 9], [2, 2, 2, 2]], [[1, 1, 5, 4], [-1, -1, 7, 6], [20, 20, 30, 30]]]
    )
    x, boxes = torch.randn(2, 8, 6, 7), boxes.to(dtype)
    assert_equals_loop(lambda x: BorderAlign(4)(x, boxes), lambda x: borders_by_loop(x, boxes, 4), dtype, x)


def test_maxima_pass_gradcheck():
    x = torch.randperm(2 * 4 * 4 * 5).view(2, 4, 4, 5).double().requires_grad_()
    boxes = ROIS[:4, 1:].expand(2, 4, 4) / 30
    assert torch.autograd.gradcheck(lambda x: roi_pool(x, ROIS, (2, 2), 0.03), [x])
    assert torch.autograd.gradcheck(lambda x: roi_align_max(x, ROIS, (2, 2), 0.03, 2, True)[0], [x])
    assert torch.autograd.gradcheck(lambda x: border_align(x, boxes, 2)[0], [x])


@pytest.mark.parametrize('layer', [RoIPool(7), RoIAlign(7, pool_mode='max')])
def test_maxima_of_no_boxes_are_empty(layer, fallback):
    x = torch.randn(1, 4, 8, 8, requires_grad=True)
    y = layer(x, torch.zeros(0, 5))
    y.sum().backward()
    assert y.shape == (0, 4, 7, 7) and not x.grad.any()


def test_borders_of_no_boxes_are_empty(fallback):
    x = torch.randn(1, 4, 8, 8, requires_grad=True)
    y = BorderAlign(3)(x, torch.zeros(1, 0, 4))
    y.sum().backward()
    assert y.shape == (1, 1, 0, 4) and not x.grad.any()
