"""What needs a GPU. `MLP_DENSE_CUDA_TESTS=cpu pytest tests/cuda` rehearses on the CPU what makes sense there."""

from collections.abc import Iterator

import pytest
import torch

from support.devices import DEVICE, tf32


@pytest.fixture(scope='session')
def device() -> torch.device:
    if DEVICE == 'cuda' and not torch.cuda.is_available():
        pytest.skip('needs a GPU (MLP_DENSE_CUDA_TESTS=cpu rehearses on the CPU)')
    return torch.device(DEVICE)


@pytest.fixture
def gpu(device) -> torch.device:
    if device.type != 'cuda':
        pytest.skip('makes sense on a GPU only')
    return device


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def exact_float32() -> Iterator[None]:
    """PyTorch's convolutions round to TF32 unless told otherwise."""
    with tf32(False):
        yield
