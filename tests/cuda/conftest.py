"""Tests that need a GPU; they are collected only if there is one.

``MLP_DENSE_CUDA_TESTS=cpu pytest tests/cuda`` rehearses on the CPU those that run there.
"""

from collections.abc import Iterator

import pytest
import torch

from support.devices import DEVICE, tf32

collect_ignore_glob = ['test_*.py'] if DEVICE == 'cuda' and not torch.cuda.is_available() else []


@pytest.fixture(scope='session')
def device() -> torch.device:
    return torch.device(DEVICE)


@pytest.fixture
def gpu(device) -> torch.device:
    if device.type != 'cuda':
        pytest.skip('needs a GPU')
    return device


@pytest.fixture(autouse=True)
def exact_float32() -> Iterator[None]:
    """Disable TF32, to which PyTorch's convolutions round by default."""
    with tf32(False):
        yield
