"""Equality with the compiled operators, with plain statements, and with autograd."""

import sys

import pytest
import torch
from mmcv.ops import DeformConv2d, ModulatedDeformConv2d, RoIAlign, nms
from mmcv.ops import sigmoid_focal_loss as mmcv_loss
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss
from torch.utils.checkpoint import checkpoint

from mlp_dense.operators import roi_align as plain_roi_align
from mlp_dense.operators.deformable import deform_conv2d
from mlp_dense.operators.nms import nms as plain_nms
from support.boxes import clustered_boxes


def greedy(boxes: torch.Tensor, scores: torch.Tensor, threshold: float, offset: int) -> list[int]:
    """Box by box."""
    kept = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        for j in kept:
            low, high = torch.maximum(boxes[i, :2], boxes[j, :2]), torch.minimum(boxes[i, 2:], boxes[j, 2:])
            both = (high - low + offset).clamp(min=0).prod()
            areas = (boxes[[j, i], 2:] - boxes[[j, i], :2] + offset).prod(1)
            if both / (areas[0] + areas[1] - both) > threshold:
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('quantum', [0, 16])
def test_nms_box_by_box(offset, dtype, quantum):
    boxes, scores = clustered_boxes(300, seed=3, quantum=quantum)
    scores = (scores * 40).round() / 40  # some are equal
    boxes = torch.cat([boxes, boxes[:5, [0, 1, 0, 1]]]).to(dtype)  # some without an area
    scores = torch.cat([scores, scores[:5]])
    assert plain_nms(boxes, scores, 0.5, offset).tolist() == greedy(boxes, scores, 0.5, offset)


def test_nms_of_a_chain():
    """Each box covers the next one alone: every second one stays, which takes as many rounds as there are boxes."""
    left = torch.arange(500.0) * 4
    boxes = torch.stack([left, left * 0, left + 10, left * 0 + 10], 1)
    kept = plain_nms(boxes, torch.linspace(1, 0, 500), 0.4)
    assert kept.tolist() == list(range(0, 500, 2))


def test_nms_equals_the_compiled_one(compiled):
    for n, threshold, offset, quantum in ((2000, 0.7, 0, 0), (2000, 0.5, 1, 8), (700, 0.05, 0, 4), (1, 0.5, 0, 0)):
        boxes, scores = clustered_boxes(n, seed=n, quantum=quantum)
        expected = compiled.nms(boxes, scores, iou_threshold=threshold, offset=offset)
        assert torch.equal(plain_nms(boxes, scores, threshold, offset), expected)


def pooled_one_by_one(x, rois, size, scale, ratio, aligned):
    """RoIAlign, sample by sample."""
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


ROIS = torch.tensor(
    [
        *([0, 10.0, 20, 90, 60], [1, -30, -20, 25, 45], [1, 100, 80, 400, 300], [0, 3, 3, 4, 4]),
        *([0, 50, 50, 50, 50], [1, 500, 500, 600, 600], [0, 0, 0, 160, 128]),
    ],
    dtype=torch.float64,
)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('entries', [2**22, 1000])
def test_roi_align_sample_by_sample(aligned, ratio, entries, stand_in, monkeypatch):
    """Also in parts, and the gradient is that of autograd."""
    monkeypatch.setattr(plain_roi_align, 'ENTRIES', entries)
    x = torch.randn(2, 3, 16, 20, dtype=torch.float64, requires_grad=True)
    expected = pooled_one_by_one(x, ROIS, (3, 5), 0.125, ratio, aligned)
    found = RoIAlign((3, 5), 0.125, ratio, 'avg', aligned)(x, ROIS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    gradient = torch.randn_like(expected)
    expected, found = (torch.autograd.grad(y, x, gradient)[0] for y in (expected, found))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_boxes_that_are_none(stand_in):
    """No box, and boxes that are not finite or turned over give 0, without taking memory."""
    x = torch.randn(1, 2, 8, 8, requires_grad=True)
    assert RoIAlign(7)(x, torch.zeros(0, 5)).shape == (0, 2, 7, 7)
    bad = torch.tensor([[0, float('nan'), 0, 5, 5], [0, 0, 0, float('inf'), 5], [0, 6, 6, 2, 2]])
    pooled = RoIAlign(7)(x, bad)
    pooled.sum().backward()
    assert not pooled.any() and not x.grad.any()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_types(dtype, stand_in):
    """They are computed in float32: what is lost is the rounding of the result."""
    exact = torch.randn(2, 3, 16, 20).to(dtype).double().requires_grad_()
    half = exact.detach().to(dtype).requires_grad_()
    for x in (exact, half):
        y = RoIAlign((3, 5), 0.125)(x, ROIS.to(x.dtype))
        y.backward(torch.ones_like(y))
    assert half.grad.dtype == dtype
    assert (half.grad - exact.grad).abs().max() <= torch.finfo(dtype).eps * exact.grad.abs().max()


def test_roi_align_twice_under_recomputation(stand_in):
    x = torch.randn(2, 3, 16, 20, dtype=torch.float64, requires_grad=True)
    layer = RoIAlign((3, 5), 0.125)
    expected = torch.autograd.grad((layer(x, ROIS) ** 2).sum(), x)[0]
    found = torch.autograd.grad((checkpoint(layer, x, ROIS, use_reentrant=False) ** 2).sum(), x)[0]
    assert torch.equal(found, expected)


def test_channels_last(stand_in):
    x = torch.randn(2, 3, 16, 20)
    assert torch.equal(
        RoIAlign(7, 0.125)(x, ROIS.float()), RoIAlign(7, 0.125)(x.to(memory_format=torch.channels_last), ROIS.float())
    )


@pytest.mark.parametrize('weighted', [False, True])
def test_focal_loss(weighted, stand_in):
    x = (4 * torch.randn(50, 6, dtype=torch.float64)).requires_grad_()
    target = torch.randint(7, (50,))
    weight = torch.rand(6, dtype=torch.float64) if weighted else None
    found = mmcv_loss(x, target, 2.0, 0.25, weight, 'none')
    labels = torch.nn.functional.one_hot(target, 7)[:, :6]
    factor = 1 if weight is None else torch.cat([weight, weight.new_ones(1)])[target, None]
    expected = py_sigmoid_focal_loss(x, labels, gamma=2.0, alpha=0.25, reduction='none') * factor
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    found, expected = (torch.autograd.grad(y.sum(), x)[0] for y in (found, expected))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def convolutions(modulated: bool, dtype: torch.dtype = torch.float64):
    """mmcv's layer and its input, offsets and mask: two groups of channels, four of offsets, uneven sizes."""
    torch.manual_seed(0)
    kind = ModulatedDeformConv2d if modulated else DeformConv2d
    layer = kind(
        8, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2, deform_groups=4, bias=modulated
    )
    x, offset = torch.randn(2, 8, 9, 11), 2 * torch.randn(2, 4 * 2 * 6, 5, 13)
    given = [x, offset, *([torch.rand(2, 4 * 6, 5, 13)] if modulated else [])]
    return layer.to(dtype), [each.to(dtype).requires_grad_() for each in given]


@pytest.mark.parametrize('modulated', [False, True])
def test_deformable_convolution(modulated, compiled, request):
    layer, given = convolutions(modulated)
    results = []
    for use in ('compiled', 'stand_in'):
        request.getfixturevalue(use)
        y = layer(*given)
        results.append([y, *torch.autograd.grad((y**2).sum(), [*given, *layer.parameters()])])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_deformable_convolution_without_offsets_is_a_convolution(stand_in):
    layer, (x, offset) = convolutions(False)
    expected = torch.nn.functional.conv2d(x, layer.weight, None, (2, 1), (1, 2), (1, 2), 2)
    torch.testing.assert_close(layer(x, torch.zeros_like(offset)), expected, rtol=0, atol=1e-12)


def test_gradient_of_the_deformable_convolution():
    torch.manual_seed(0)
    given = torch.randn(1, 2, 4, 5), 0.3 + torch.rand(1, 8, 3, 4), torch.randn(3, 2, 2, 2), torch.rand(1, 4, 3, 4)
    given = [each.double().requires_grad_() for each in given]
    how = dict(stride=(1, 1), padding=(0, 0), dilation=(1, 1))
    assert torch.autograd.gradcheck(lambda x, o, w, m: deform_conv2d(x, o, w, mask=m, **how), given)


def test_deformable_attention(stand_in):
    """The functions that mmcv calls on a GPU; elsewhere it calls its own PyTorch form."""
    module = sys.modules['mmcv.ops.multi_scale_deform_attn']
    apply, plain = module.MultiScaleDeformableAttnFunction.apply, module.multi_scale_deformable_attn_pytorch
    shapes = torch.tensor([[6, 4], [3, 2]])
    given = [torch.randn(2, 30, 2, 4), torch.rand(2, 5, 2, 2, 3, 2), torch.rand(2, 5, 2, 2, 3)]
    value, places, weights = (each.double().requires_grad_() for each in given)
    found = apply(value, shapes, torch.tensor([0, 24]), places, weights, 64)
    expected = plain(value, shapes, places, weights)
    gradients = [torch.autograd.grad((y**2).sum(), [value, places, weights]) for y in (found, expected)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_nms_keeps_the_types_of_mmcv(stand_in):
    boxes, scores = clustered_boxes(50, seed=1)
    dets, kept = nms(boxes.numpy(), scores.numpy(), 0.5)
    assert dets.shape == (len(kept), 5) and str(kept.dtype) == 'int64'
