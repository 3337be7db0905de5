"""On a GPU the backbones compute what they compute on the CPU, in every precision, layout and mode."""

import copy

import pytest
import torch
from torch import Tensor, nn

from mlp_dense import fuse
from support.devices import assert_near, assert_near_gradients, deterministic, tf32
from support.models import SMALL, built, differing, image

HALF = [torch.bfloat16, torch.float16]


def part_of(model: nn.Module) -> float:
    """Return the fraction of outputs to compare if logits are rounded: an item may go to another expert."""
    return 0.9 if hasattr(model, 'is_sparse') else 1.0


def loss_of(outs: tuple[Tensor, ...]) -> Tensor:
    """Return a weighted sum of every value of every feature map."""
    weights = (torch.linspace(-1, 1, x.numel(), dtype=torch.float64).view(x.shape).to(x) for x in outs)
    return sum((x * weight).sum() for x, weight in zip(outs, weights, strict=True))


def step(model: nn.Module, x: Tensor) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """Return outputs, and the gradients of the input and of all parameters."""
    x = x.detach().requires_grad_()
    torch.manual_seed(0)
    outs = model(x)
    return outs, list(torch.autograd.grad(loss_of(outs), [x, *model.parameters()]))


@pytest.fixture(autouse=True)
def noise_of_the_cpu(monkeypatch):
    """Draw the same noise for a router on every device."""
    monkeypatch.setattr(torch, 'randn_like', lambda x, dtype: torch.randn(x.shape, dtype=dtype).to(x.device))


@pytest.mark.parametrize('size', [(97, 131), (3, 40)], ids=str)
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_float64_equals_the_cpu(family, device, size, training):
    model, x = built(family, torch.float64).train(training), image(2, 3, *size, dtype=torch.float64)
    other = copy.deepcopy(model).to(device)
    expected, gradients = step(model, x)
    outs, actual = step(other, x.to(device))
    assert all(out.device.type == device.type and out.is_contiguous() for out in outs)
    assert_near(outs, expected, 1e-9)
    assert_near_gradients(actual, gradients, 1e-9)
    if not training:
        with torch.inference_mode():
            assert_near(fuse(other)(x.to(device)), expected, 1e-9)
    torch.testing.assert_close(other.cpu().state_dict(), model.state_dict())  # running statistics


@pytest.mark.parametrize(
    ('dtype', 'rounding', 'bound'),
    [(torch.float32, False, 1e-4), (torch.float32, True, 1e-2), *((dtype, False, 0.05) for dtype in HALF)],
    ids=['float32', 'tf32', 'bfloat16', 'float16'],
)
def test_other_precisions_are_near_the_cpu(family, device, dtype, rounding, bound):
    model, x = built(family), image(2, 3, 97, 131)
    with torch.no_grad(), tf32(rounding):
        expected = model(x)
        outs = model.to(device, dtype)(x.to(device, dtype))
    assert all(out.dtype == dtype for out in outs)
    assert_near(outs, expected, bound, part_of(model) if bound > 1e-4 else 1.0)


@pytest.mark.parametrize('dtype', HALF, ids=str)
def test_autocast_trains_and_stays_near_float32(family, device, dtype):
    model, x = built(family).train(), image(2, 3, 97, 131)
    other = copy.deepcopy(model).to(device)
    torch.manual_seed(0)
    expected = model(x)
    torch.manual_seed(0)
    with torch.autocast(device.type, dtype):
        outs = other(x.to(device))
    assert_near(outs, expected, 0.05, part_of(model))
    (loss_of([out.float() for out in outs]) / 100).backward()
    gradients = {name: parameter.grad for name, parameter in other.named_parameters()}
    faulty = [name for name, grad in gradients.items() if grad.dtype != torch.float32 or not grad.isfinite().all()]
    assert faulty == []


def test_channels_last_gives_the_same(family, device):
    model, x = built(family, torch.float64).train().to(device), image(2, 3, 97, 131, dtype=torch.float64).to(device)
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    expected, gradients = step(model, x)
    outs, actual = step(other, x.contiguous(memory_format=torch.channels_last))
    assert all(out.is_contiguous() for out in outs)
    assert_near(outs, expected, 1e-9)
    assert_near_gradients(actual, gradients, 1e-9)


def test_with_cp_changes_nothing(family, device):
    results = []
    for with_cp in (False, True):
        model = built(family, torch.float64, with_cp=with_cp, drop_path_rate=0.5).train().to(device)
        results.append((*step(model, image(4, 3, 97, 131, dtype=torch.float64).to(device)), model.state_dict()))
    (outs, gradients, state), (outs_cp, gradients_cp, state_cp) = results
    assert_near(outs_cp, outs, 1e-9)
    assert_near_gradients(gradients_cp, gradients, 1e-9)
    torch.testing.assert_close(state_cp, state)  # also running statistics and num_batches_tracked


@pytest.mark.parametrize('dtype', [torch.float32, *HALF], ids=str)
def test_deterministic_mode_gives_the_same_bits(family, device, dtype):
    x, results = image(2, 3, 97, 131).to(device), []
    for _ in range(2):
        torch.manual_seed(0)
        model = family(SMALL, drop_path_rate=0.5).train().to(device)
        with deterministic():
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                outs = model(x)
            loss_of([out.float() for out in outs]).backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        results.append(dict(enumerate(outs)) | gradients | model.state_dict(prefix='state.'))
    assert differing(*results) == []
