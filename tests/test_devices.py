"""The comparisons of the tests that need a GPU."""

import pytest
import torch

from support.devices import assert_near, assert_near_gradients


@pytest.mark.parametrize('compare', [assert_near, assert_near_gradients])
def test_comparison_detects_differences(compare):
    exact = [torch.linspace(-1, 1, 100, dtype=torch.float64), torch.ones(3, dtype=torch.float64)]
    compare([tensor.float() for tensor in exact], exact, 1e-6)
    for wrong in (exact[0] + 2e-3 * (exact[0] == 1), exact[0] * torch.nan, exact[0][:-1]):
        with pytest.raises(AssertionError):
            compare([wrong, exact[1]], exact, 1e-3)
    with pytest.raises(ValueError):
        compare(exact[:1], exact, 1e-3)


def test_comparison_ignores_a_fraction_of_the_values():
    exact = torch.linspace(-1, 1, 100)
    wrong = exact + (torch.arange(100) < 9)
    assert_near([wrong], [exact], 1e-6, fraction=0.9)
    with pytest.raises(AssertionError):
        assert_near([wrong], [exact], 1e-6, fraction=0.95)
