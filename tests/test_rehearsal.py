"""The tests of `tests/cuda`, without a GPU: some run on the CPU, all others wait."""

import re

import pytest
import torch

from support.devices import assert_near, assert_near_gradients
from support.tools import run


def outcomes(monkeypatch, device: str, *options: str) -> dict[str, int]:
    """How many of them passed, were skipped, ... in a process that sees no GPU."""
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    monkeypatch.setenv('MLP_DENSE_CUDA_TESTS', device)
    said = run('-m', 'pytest', 'tests/cuda', '-p', 'no:cacheprovider', *options)
    return {word: int(count) for count, word in re.findall(r'(\d+) (\w+)', said.splitlines()[-1])}


@pytest.mark.slow
def test_some_run_on_the_cpu(monkeypatch):
    some = 'HireMLP or SparseMLP or focal or cycle_mlp_mask_rcnn or (sparse_mlp_upernet and bfloat16)'
    found = outcomes(monkeypatch, 'cpu', '-k', f'({some}) and not compiled')
    assert found['passed'] > 50 and not {'failed', 'error', 'errors'} & set(found)


@pytest.mark.slow
def test_without_a_gpu_they_wait(monkeypatch):
    found = outcomes(monkeypatch, 'cuda')
    assert found['skipped'] > 200 and not {'passed', 'failed', 'error', 'errors'} & set(found)


@pytest.mark.parametrize('compare', [assert_near, assert_near_gradients])
def test_differences_are_seen(compare):
    exact = [torch.linspace(-1, 1, 100, dtype=torch.float64), torch.ones(3, dtype=torch.float64)]
    compare([each.float() for each in exact], exact, 1e-6)
    for wrong in (exact[0] + 2e-3 * (exact[0] == 1), exact[0] * torch.nan, exact[0][:-1]):
        with pytest.raises(AssertionError):
            compare([wrong, exact[1]], exact, 1e-3)
    with pytest.raises(ValueError):
        compare(exact[:1], exact, 1e-3)


def test_a_part_may_differ():
    exact = torch.linspace(-1, 1, 100)
    wrong = exact + (torch.arange(100) < 9)
    assert_near([wrong], [exact], 1e-6, part=0.9)
    with pytest.raises(AssertionError):
        assert_near([wrong], [exact], 1e-6, part=0.95)
