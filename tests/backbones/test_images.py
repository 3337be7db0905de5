"""Images of any size, memory layout, precision and number of channels."""

import copy

import pytest
import torch

from reference import reference_of
from support.models import SMALL, image, loss_of


@pytest.mark.parametrize('height, width', [(1, 1), (1, 9), (2, 5), (3, 3), (5, 2), (13, 50), (203, 271)])
@pytest.mark.parametrize('batch', [1, 3])
def test_any_image_size_and_batch_size(small, batch, height, width):
    x = image(batch, 3, height, width)
    with torch.no_grad():
        outs = small.eval()(x)
    reference = reference_of(type(small))
    sizes = zip(reference.map_sizes(height), reference.map_sizes(width), strict=True)
    assert [tuple(out.shape) for out in outs] == [
        (batch, c, h, w) for c, (h, w) in zip(SMALL['dims'], sizes, strict=True)
    ]
    with torch.no_grad():  # images of a batch do not see each other
        torch.testing.assert_close(small(x[:1]), tuple(out[:1] for out in outs))


@pytest.mark.parametrize(
    'lay_out',
    [
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: torch.cat([x, x], 3)[..., : x.shape[3]],
    ],
    ids=['channels_last', 'transposed', 'slice'],
)
def test_memory_layout_of_the_image_does_not_matter(small, lay_out):
    x = image(2, 3, 61, 45)
    laid_out = lay_out(x)
    assert laid_out.stride() != x.stride()
    torch.manual_seed(0)
    outs = small.train()(x)
    torch.manual_seed(0)  # of the noise of a router
    others = small.train()(laid_out)
    torch.testing.assert_close(outs, others)
    assert torch.equal(laid_out, x)
    assert all(out.is_contiguous() for out in (*outs, *others))  # mmcv's RoIAlign reads memory in this order


def test_model_in_channels_last_memory_gives_the_same(small):
    x = image(2, 3, 61, 45)
    expected = small.eval()(x)
    outs = small.to(memory_format=torch.channels_last)(x)
    torch.testing.assert_close(outs, expected)
    assert all(out.is_contiguous() for out in outs)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_trains_and_stays_near_float32(small, dtype):
    x = image(2, 3, 64, 48)
    torch.manual_seed(0)
    expected = copy.deepcopy(small).train()(x)
    torch.manual_seed(0)  # of the noise of a router
    with torch.autocast('cpu', dtype):
        outs = small.train()(x)
    loss_of(out.float() for out in outs).backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in small.parameters())
    for out, exact in zip(outs, expected, strict=True):
        error = (out.float() - exact).abs()
        # A rounded item may go to another expert.
        largest = error.flatten().quantile(0.9) if hasattr(small, 'is_sparse') else error.max()
        assert largest < 0.05 * exact.abs().max()


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_whole_model_in_another_precision(small, dtype):
    x = image(2, 3, 64, 48)
    expected = small.eval()(x)
    for out, exact in zip(small.to(dtype)(x.to(dtype)), expected, strict=True):
        assert out.dtype == dtype
        assert (out.float() - exact).abs().max() < (0.05 if dtype == torch.bfloat16 else 1e-5) * exact.abs().max()


def test_other_number_of_image_channels(family):
    side = reference_of(family).map_sizes(64)[0]
    assert family(SMALL, in_channels=5)(image(2, 5, 64, 64))[0].shape == (2, 16, side, side)
