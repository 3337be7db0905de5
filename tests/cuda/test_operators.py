"""On a GPU mmcv's operators are torchvision's, or those of this package: both give the same, and what the CPU gives."""

from collections.abc import Callable

import pytest
import torch
from mmcv.ops import DeformConv2d, RoIAlign, batched_nms, sigmoid_focal_loss
from torch import Tensor, nn

from mlp_dense.operators import by_torchvision, deformable, has_torchvision, roi_align
from mlp_dense.operators import nms as suppression
from support.boxes import ROIS, clustered_boxes
from support.devices import deterministic
from support.operators import put_in_place

EXACT = dict(rtol=1e-9, atol=1e-9)
Chooses = Callable[[bool], None]


@pytest.fixture(autouse=True)
def stand_in(monkeypatch) -> None:
    put_in_place(monkeypatch)


@pytest.fixture
def by(device, monkeypatch) -> Chooses:
    """Chooses between torchvision's operators and this package's."""
    if not has_torchvision(device.type):
        pytest.skip(f'torchvision is not installed, or not for {device}')

    def by(torchvision: bool) -> None:
        for module in (suppression, roi_align):
            monkeypatch.setattr(module, 'by_torchvision', lambda values: torchvision)

    return by


def test_operators_choose_torchvision_if_installed(gpu):
    values = torch.ones(1, device=gpu)
    assert by_torchvision(values) == has_torchvision('cuda') and not by_torchvision(values.cpu())
    with deterministic():
        assert not by_torchvision(values)


def boxes_of(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes with different scores, and their classes."""
    boxes, scores = clustered_boxes(2000, seed=2)
    order = scores.argsort().argsort()
    return boxes.to(device, dtype), (order / len(order)).to(device, dtype), (order % 5).to(device)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize('threshold', [0.05, 0.5, 0.7])
def test_nms(by, device, dtype, threshold):
    boxes, scores, _ = boxes_of(dtype, device)
    by(torchvision=False)
    plain, expected = (suppression.nms(*pair, threshold) for pair in ((boxes, scores), (boxes.cpu(), scores.cpu())))
    by(torchvision=True)
    assert torch.equal(suppression.nms(boxes, scores, threshold), plain)
    assert plain.device.type == device.type and torch.equal(plain.cpu(), expected)
    assert 1 < len(plain) < len(boxes)


@pytest.mark.parametrize('split', [10000, 100], ids=['at once', 'by class'])
def test_batched_nms(by, device, split):
    inputs, cfg = boxes_of(torch.float64, device), dict(type='nms', iou_threshold=0.5, split_thr=split)
    by(torchvision=False)
    expected, kept = batched_nms(*(tensor.cpu() for tensor in inputs), cfg)
    for torchvision in (False, True):
        by(torchvision)
        detections, indices = batched_nms(*inputs, cfg)
        assert torch.equal(indices.cpu(), kept) and torch.equal(detections.cpu(), expected)


def pooled(layer: nn.Module, x: Tensor, rois: Tensor) -> list[Tensor]:
    """Return the output of a layer and a gradient."""
    x = x.detach().requires_grad_()
    y = layer(x, rois)
    weight = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape).to(y)
    return [y.detach().cpu(), torch.autograd.grad((y * weight).sum(), x)[0].cpu()]


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('dtype, bound', [(torch.float64, 1e-9), (torch.float32, 1e-4), (torch.float16, 1e-2)], ids=str)
def test_roi_align(by, device, aligned, ratio, dtype, bound):
    x, rois = torch.randn(2, 3, 16, 20, dtype=torch.float64).to(dtype), ROIS.to(dtype)
    layer = RoIAlign((3, 5), 0.125, ratio, 'avg', aligned)
    by(torchvision=False)
    expected = pooled(layer, x, rois)
    for torchvision in (False, True):
        by(torchvision)
        for result, reference in zip(pooled(layer, x.to(device), rois.to(device)), expected, strict=True):
            assert result.dtype == dtype and (result - reference).abs().max() <= bound * reference.abs().max()


@pytest.mark.parametrize('weighted', [False, True])
def test_sigmoid_focal_loss(device, weighted):
    x, target, weight = 4 * torch.randn(50, 6).double(), torch.randint(7, (50,)), torch.rand(6).double()
    results = []
    for target_device in ('cpu', device):
        leaf = x.to(target_device).requires_grad_()
        of_classes = weight.to(target_device) if weighted else None
        y = sigmoid_focal_loss(leaf, target.to(target_device), 2.0, 0.25, of_classes, 'none')
        results.append([y.detach().cpu(), torch.autograd.grad(y.sum(), leaf)[0].cpu()])
    torch.testing.assert_close(results[1], results[0], **EXACT)


@pytest.mark.parametrize('spread', [0, 2])
@pytest.mark.parametrize('plain', [True, False], ids=['plain', 'torchvision'])
def test_deformable_convolution(device, monkeypatch, plain, spread):
    if not plain and not has_torchvision(device.type):
        pytest.skip(f'torchvision is not installed, or not for {device}')
    layer = DeformConv2d(8, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2, deform_groups=4)
    inputs = [torch.randn(2, 8, 9, 11), spread * torch.randn(2, 4 * 2 * 6, 5, 13)]
    monkeypatch.setattr(deformable, 'has_torchvision', lambda kind: not plain)
    results = []
    for target in ('cpu', device):
        x, offset = (tensor.to(target, torch.float64).requires_grad_() for tensor in inputs)
        y = layer.to(target, torch.float64)(x, offset)
        gradients = torch.autograd.grad((y**2).sum(), [x, offset, *layer.parameters()])
        results.append([t.detach().cpu() for t in (y, *gradients)])
    torch.testing.assert_close(results[1], results[0], **EXACT)
