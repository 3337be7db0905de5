"""Equality of the operators with the compiled ones, with loops, and with autograd."""

import sys

import pytest
import torch
from mmcv.ops import RoIAlign, nms
from torch.utils.checkpoint import checkpoint

from mlp_dense.operators import roi_align as our_roi_align
from mlp_dense.operators.nms import nms as our_nms
from support.boxes import ROIS, clustered_boxes


def greedy(boxes: torch.Tensor, scores: torch.Tensor, threshold: float, offset: int) -> list[int]:
    """Suppress box by box."""
    kept = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        for j in kept:
            low, high = torch.maximum(boxes[i, :2], boxes[j, :2]), torch.minimum(boxes[i, 2:], boxes[j, 2:])
            intersection = (high - low + offset).clamp(min=0).prod()
            areas = (boxes[[j, i], 2:] - boxes[[j, i], :2] + offset).prod(1)
            if intersection / (areas[0] + areas[1] - intersection) > threshold:
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('quantum', [0, 16])
def test_nms_equals_suppression_box_by_box(offset, dtype, quantum):
    boxes, scores = clustered_boxes(300, seed=3, quantum=quantum)
    scores = (scores * 40).round() / 40  # some are equal
    boxes = torch.cat([boxes, boxes[:5, [0, 1, 0, 1]]]).to(dtype)  # some without an area
    scores = torch.cat([scores, scores[:5]])
    assert our_nms(boxes, scores, 0.5, offset).tolist() == greedy(boxes, scores, 0.5, offset)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_nms_of_half_precision_equals_that_of_the_same_boxes(dtype):
    """In float16 an area of 256x256 pixels is infinite, and in bfloat16 an overlap has 8 bits."""
    boxes, scores = clustered_boxes(200, seed=4)
    boxes, scores = (3 * boxes).to(dtype), scores.to(dtype)
    kept = our_nms(boxes, scores, 0.5)
    assert kept.tolist() == greedy(boxes.float(), scores.float(), 0.5, 0) and len(kept) < 150


def test_nms_keeps_every_second_box_of_a_chain():
    """Each box covers only the next one, so the number of rounds equals the number of boxes."""
    left = torch.arange(500.0) * 4
    boxes = torch.stack([left, left * 0, left + 10, left * 0 + 10], 1)
    kept = our_nms(boxes, torch.linspace(1, 0, 500), 0.4)
    assert kept.tolist() == list(range(0, 500, 2))


def test_nms_equals_the_compiled_nms(compiled):
    for n, threshold, offset, quantum in ((2000, 0.7, 0, 0), (2000, 0.5, 1, 8), (700, 0.05, 0, 4), (1, 0.5, 0, 0)):
        boxes, scores = clustered_boxes(n, seed=n, quantum=quantum)
        expected = compiled.nms(boxes, scores, iou_threshold=threshold, offset=offset)
        assert torch.equal(our_nms(boxes, scores, threshold, offset), expected)


def pooled_one_by_one(x, rois, size, scale, ratio, aligned):
    """Compute RoIAlign sample by sample."""
    height, width = x.shape[2:]
    output = x.new_zeros(len(rois), x.shape[1], *size)
    for n, (image, *corners) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (corner * scale - 0.5 * aligned for corner in corners)
        h, w = (y2 - y1, x2 - x1) if aligned else (max(y2 - y1, 1), max(x2 - x1, 1))
        ny, nx = (ratio, ratio) if ratio else (int(-(-h // size[0])), int(-(-w // size[1])))
        for i in range(size[0]):
            for j in range(size[1]):
                for a in range(ny):
                    for b in range(nx):
                        y = y1 + h / size[0] * (i + (a + 0.5) / ny)
                        xx = x1 + w / size[1] * (j + (b + 0.5) / nx)
                        if -1 <= y <= height and -1 <= xx <= width:
                            y, xx = min(max(y, 0), height - 1), min(max(xx, 0), width - 1)
                            for row in {int(y), min(int(y) + 1, height - 1)}:
                                for column in {int(xx), min(int(xx) + 1, width - 1)}:
                                    weight = (1 - abs(y - row)) * (1 - abs(xx - column))
                                    output[n, :, i, j] += weight * x[int(image), :, row, column] / (ny * nx)
    return output


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('entries', [2**22, 1000])
def test_roi_align_and_its_gradient_equal_the_loop(aligned, ratio, entries, fallback, monkeypatch):
    """Use 1000 entries, which are computed in chunks."""
    monkeypatch.setattr(our_roi_align, 'ENTRIES', entries)
    x = torch.randn(2, 3, 16, 20, dtype=torch.float64, requires_grad=True)
    expected = pooled_one_by_one(x, ROIS, (3, 5), 0.125, ratio, aligned)
    actual = RoIAlign((3, 5), 0.125, ratio, 'avg', aligned)(x, ROIS)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    gradient = torch.randn_like(expected)
    expected, actual = (torch.autograd.grad(y, x, gradient)[0] for y in (expected, actual))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_roi_align_of_invalid_boxes_is_zero(fallback):
    """No boxes, and boxes that are not finite or inverted, need no memory."""
    x = torch.randn(1, 2, 8, 8, requires_grad=True)
    assert RoIAlign(7)(x, torch.zeros(0, 5)).shape == (0, 2, 7, 7)
    invalid = torch.tensor([[0, float('nan'), 0, 5, 5], [0, 0, 0, float('inf'), 5], [0, 6, 6, 2, 2]])
    pooled = RoIAlign(7)(x, invalid)
    pooled.sum().backward()
    assert not pooled.any() and not x.grad.any()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_loses_only_the_rounding_of_the_result(dtype, fallback):
    """The computation is in float32."""
    exact = torch.randn(2, 3, 16, 20).to(dtype).double().requires_grad_()
    half = exact.detach().to(dtype).requires_grad_()
    for x in (exact, half):
        y = RoIAlign((3, 5), 0.125)(x, ROIS.to(x.dtype))
        y.backward(torch.ones_like(y))
    assert half.grad.dtype == dtype
    assert (half.grad - exact.grad).abs().max() <= torch.finfo(dtype).eps * exact.grad.abs().max()


def test_roi_align_is_equal_under_recomputation(fallback):
    x = torch.randn(2, 3, 16, 20, dtype=torch.float64, requires_grad=True)
    layer = RoIAlign((3, 5), 0.125)
    expected = torch.autograd.grad((layer(x, ROIS) ** 2).sum(), x)[0]
    actual = torch.autograd.grad((checkpoint(layer, x, ROIS, use_reentrant=False) ** 2).sum(), x)[0]
    assert torch.equal(actual, expected)


def test_roi_align_accepts_channels_last(fallback):
    x, layer = torch.randn(2, 3, 16, 20), RoIAlign(7, 0.125)
    assert torch.equal(layer(x, ROIS.float()), layer(x.to(memory_format=torch.channels_last), ROIS.float()))


def test_deformable_attention_equals_mmcvs_reference(fallback):
    """On a CPU mmcv itself calls the PyTorch reference."""
    module = sys.modules['mmcv.ops.multi_scale_deform_attn']
    apply, reference = module.MultiScaleDeformableAttnFunction.apply, module.multi_scale_deformable_attn_pytorch
    shapes = torch.tensor([[6, 4], [3, 2]])
    inputs = [torch.randn(2, 30, 2, 4), torch.rand(2, 5, 2, 2, 3, 2), torch.rand(2, 5, 2, 2, 3)]
    value, locations, weights = (tensor.double().requires_grad_() for tensor in inputs)
    actual = apply(value, shapes, torch.tensor([0, 24]), locations, weights, 64)
    expected = reference(value, shapes, locations, weights)
    gradients = [torch.autograd.grad((y**2).sum(), [value, locations, weights]) for y in (actual, expected)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_nms_returns_numpy_arrays_for_numpy_arrays(fallback):
    boxes, scores = clustered_boxes(50, seed=1)
    dets, kept = nms(boxes.numpy(), scores.numpy(), 0.5)
    assert dets.shape == (len(kept), 5) and str(kept.dtype) == 'int64'
