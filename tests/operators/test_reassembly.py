"""CARAFE, masked convolution and PSANet's attention equal loops over all values."""

from itertools import product

import pytest
import torch
from mmcv.ops import CARAFE, CARAFENaive, MaskedConv2d, PSAMask
from torch import Tensor

from mlp_dense.operators.carafe import carafe
from mlp_dense.operators.masked_conv import masked_col2im, masked_im2col
from mlp_dense.operators.psa_mask import psa_mask
from support.operators import DTYPES, assert_equals_loop, strided


def carafe_by_loop(x: Tensor, masks: Tensor, kernel: int, groups: int, scale: int) -> Tensor:
    batch, channels, height, width = x.shape
    output = []
    for n, c, i, j in product(range(batch), range(channels), range(height * scale), range(width * scale)):
        value = 0 * x[0, 0, 0, 0]
        for a, b in product(range(kernel), repeat=2):
            row, column = i // scale + a - kernel // 2, j // scale + b - kernel // 2
            if 0 <= row < height and 0 <= column < width:
                weight = masks[n, (c // (channels // groups) * kernel + a) * kernel + b, i, j]
                value = value + weight * x[n, c, row, column]
        output.append(value)
    return torch.stack(output).view(batch, channels, height * scale, width * scale)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_carafe_equals_the_loop(dtype, fallback):
    x, masks = torch.randn(2, 4, 3, 4), torch.rand(2, 2 * 9, 6, 8)
    assert_equals_loop(CARAFE(3, 2, 2), lambda x, m: carafe_by_loop(x, m, 3, 2, 2), dtype, x, masks)
    assert torch.equal(CARAFENaive(3, 2, 2)(x, masks), CARAFE(3, 2, 2)(x, masks))  # mmcv: no gradient without a GPU


def test_carafe_passes_gradcheck_and_accepts_no_images():
    x, masks = torch.randn(1, 2, 2, 3).double().requires_grad_(), torch.rand(1, 25, 4, 6).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, m: carafe(x, m, 5, 1, 2), [x, masks])
    assert carafe(x[:0], masks[:0], 5, 1, 2).shape == (0, 2, 4, 6)


@pytest.mark.filterwarnings('ignore:This overload of addmm is deprecated')  # called by mmcv
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('kernel, padding', [(3, 1), ((1, 3), (0, 1)), (3, 2)])
def test_masked_convolution_equals_the_convolution_at_the_mask(kernel, padding, dtype, fallback):
    layer = MaskedConv2d(3, 4, kernel, padding=padding)
    layer.bias.data.normal_()
    x, mask = torch.randn(1, 3, 6, 5).to(dtype), torch.rand(1, 6, 5) > 0.5
    expected = layer.double()(x.double()) * torch.nn.functional.pad(
        mask.double(),
        (0, layer.padding[1] * 2 + 1 - layer.kernel_size[1], 0, layer.padding[0] * 2 + 1 - layer.kernel_size[0]),
    )
    layer.to(dtype)
    actual = layer(strided(x), mask)
    assert (actual.double() - expected).abs().max() <= 16 * torch.finfo(dtype).eps * expected.abs().max()
    assert not layer(x, torch.zeros(1, 6, 5)).any()


def test_masked_convolution_passes_gradcheck():
    x = torch.randn(1, 2, 3, 4).double().requires_grad_()
    rows, columns = torch.tensor([0, 2, 2]), torch.tensor([1, 0, 3])
    assert torch.autograd.gradcheck(lambda x: masked_im2col(x, rows, columns, (3, 3), (1, 1)), [x])
    values = torch.randn(2, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: masked_col2im(v, rows, columns, (3, 4)), [values])


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('psa_type', ['collect', 'distribute'])
@pytest.mark.parametrize('mask_size', [(5, 7), (3, 3)])
def test_psa_mask_equals_the_loop(mask_size, psa_type, dtype, fallback):
    def loop(masks: Tensor) -> Tensor:
        output = torch.zeros(2, 12, 3, 4, dtype=masks.dtype)
        for h, w, a, b in product(range(3), range(4), *map(range, mask_size)):
            row, column = h + a - mask_size[0] // 2, w + b - mask_size[1] // 2
            if 0 <= row < 3 and 0 <= column < 4:
                weight = masks[:, a * mask_size[1] + b, h, w]
                if psa_type == 'collect':
                    output[:, row * 4 + column, h, w] = weight
                else:
                    output[:, h * 4 + w, row, column] = weight
        return output

    masks = torch.randn(2, mask_size[0] * mask_size[1], 3, 4)
    assert_equals_loop(PSAMask(psa_type, mask_size), loop, dtype, masks)


def test_psa_mask_passes_gradcheck_and_accepts_no_images():
    masks = torch.randn(1, 15, 2, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda m: psa_mask(m, (3, 5), True), [masks])
    assert psa_mask(masks[:0], (3, 5), False).shape == (0, 6, 2, 3)
