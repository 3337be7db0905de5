"""Weighted cross-entropy of segmentors."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS

WEIGHTS = [1.0, 20.0, 3.0]


@pytest.fixture
def loss():
    return MODELS.build(dict(type='mlp_dense.WeightedCrossEntropyLoss', class_weight=WEIGHTS, loss_weight=2.0))


@pytest.fixture
def scores():
    return torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('ignore_index', [255, 3])
def test_loss_is_the_mean_over_pixels_that_are_not_ignored(loss, scores, ignore_index):
    labels = torch.arange(40).view(2, 4, 5) % 3
    labels[:, 0] = ignore_index
    expected = 2 * F.cross_entropy(scores, labels, torch.tensor(WEIGHTS), ignore_index=ignore_index)
    assert torch.allclose(loss(scores, labels, ignore_index=ignore_index), expected)
    half = loss(scores.half(), labels, ignore_index=ignore_index)
    assert half.dtype == torch.float32 and torch.allclose(half, expected, rtol=1e-2)


def test_half_precision_and_integer_weights_are_accepted():
    loss = MODELS.build(dict(type='mlp_dense.WeightedCrossEntropyLoss', class_weight=[1, 40])).half()
    scores, labels = torch.zeros(1, 2, 512, 512).half(), torch.ones(1, 512, 512, dtype=torch.long)
    assert torch.allclose(loss(scores, labels), torch.tensor(2.0).log())
    assert loss(scores, labels, reduction_override='none').shape == labels.shape


def test_loss_without_pixels_is_zero(loss, scores):
    scores.requires_grad_()
    value = loss(scores, torch.full((2, 4, 5), 255))
    value.backward()
    assert value == 0 and not scores.grad.any()


def test_pixel_weights_select_pixels(loss, scores):
    labels = torch.zeros(2, 4, 5, dtype=torch.long)
    chosen = torch.zeros(2, 4, 5)
    chosen[0, 0, 0] = 1
    alone = F.cross_entropy(scores[:1, :, :1, :1], labels[:1, :1, :1])
    assert torch.allclose(loss(scores, labels, weight=chosen), 2 * alone / 40)
