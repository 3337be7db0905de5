"""Focal losses equal mmdet's reference, and the formula."""

import pytest
import torch
from mmcv.ops import sigmoid_focal_loss as mmcv_loss
from mmcv.ops import softmax_focal_loss
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

from mlp_dense.operators import focal_loss
from support.operators import DTYPES


@pytest.mark.parametrize('weighted', [False, True])
def test_sigmoid_focal_loss_equals_mmdets_reference(weighted, fallback):
    x = (4 * torch.randn(50, 6, dtype=torch.float64)).requires_grad_()
    target = torch.randint(7, (50,))
    weight = torch.rand(6, dtype=torch.float64) if weighted else None
    actual = mmcv_loss(x, target, 2.0, 0.25, weight, 'none')
    labels = torch.nn.functional.one_hot(target, 7)[:, :6]
    factor = 1 if weight is None else torch.cat([weight, weight.new_ones(1)])[target, None]
    expected = py_sigmoid_focal_loss(x, labels, gamma=2.0, alpha=0.25, reduction='none') * factor
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    actual, expected = (torch.autograd.grad(y.sum(), x)[0] for y in (actual, expected))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('weighted', [False, True])
def test_softmax_focal_loss_equals_the_formula(weighted, dtype, fallback):
    x, target = 3 * torch.randn(20, 5), torch.randint(-1, 5, (20,))
    weight = torch.tensor([0.5, 1, 2, 0.25, 4]) if weighted else None

    def formula(x):
        p = x.softmax(1)[range(20), target.clamp(min=0)]
        loss = -0.25 * (1 - p) ** 2 * p.log() * (target >= 0)
        return (loss * (1 if weight is None else weight[target.clamp(min=0)])).mean()

    def layer(x):
        return softmax_focal_loss(x, target, 2.0, 0.25, None if weight is None else weight.to(x.dtype))

    leaf = x.to(dtype).requires_grad_()
    exact = leaf.detach().double().requires_grad_()
    losses = layer(leaf), formula(exact)
    gradients = torch.autograd.grad(losses[0], leaf) + torch.autograd.grad(losses[1], exact)
    for actual, expected in (losses, gradients):
        torch.testing.assert_close(actual.double(), expected, rtol=0, atol=8 * torch.finfo(dtype).eps)


def test_softmax_focal_loss_passes_gradcheck_and_accepts_no_samples():
    x, target, weight = torch.randn(6, 4).double().requires_grad_(), torch.tensor([0, 3, -1, 2, 1, 0]), torch.rand(4)
    assert torch.autograd.gradcheck(lambda x: focal_loss.softmax_focal_loss(x, target, weight, 2.0, 0.25), [x])
    assert focal_loss.softmax_focal_loss(x[:0], target[:0], weight, 2.0, 0.25).shape == (0,)


@pytest.mark.parametrize('loss', [focal_loss.sigmoid_focal_loss, focal_loss.softmax_focal_loss])
def test_gradients_of_saturated_logits_are_finite(loss):
    x = torch.tensor([[50.0, 0], [-200, 200], [200, -200]], requires_grad=True)
    loss(x, torch.tensor([0, 0, 1]), torch.empty(0), 0.5, 0.25).sum().backward()
    assert x.grad.isfinite().all()
