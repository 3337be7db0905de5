"""Images of any size, memory layout, precision and number of channels."""

import copy

import pytest
import torch

from support.models import image, loss_of


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


def test_complete_model_in_bfloat16_stays_near_float32(small):
    x = image(2, 3, 64, 48)
    expected = small.eval()(x)
    for out, exact in zip(small.bfloat16()(x.bfloat16()), expected, strict=True):
        assert out.dtype == torch.bfloat16 and (out.float() - exact).abs().max() < 0.05 * exact.abs().max()
