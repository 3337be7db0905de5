"""What the tests of `tests/cuda` share: their device, numbers that differ by rounding, and memory in use."""

import gc
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from support.models import SMALL, official

DEVICE = os.environ.get('MLP_DENSE_CUDA_TESTS') or 'cuda'


def built(family: type, dtype: torch.dtype = torch.float32, **arguments) -> torch.nn.Module:
    """A backbone on the CPU, in eval mode, with weights and statistics of which each matters."""
    model = family(SMALL, **arguments).to(dtype).eval()
    model.load_state_dict(official(family))
    return model


def assert_near(found: Iterable[Tensor], exact: Iterable[Tensor], bound: float, part: float = 1.0) -> None:
    """Raises AssertionError where a tensor differs by more than `bound` of its largest value: in more than the rest
    beside `part` of its values."""
    for a, b in zip(found, exact, strict=True):
        a, b = a.detach().cpu().double(), b.detach().cpu().double()
        assert a.shape == b.shape and a.isfinite().all()
        error = (a - b).abs().flatten()
        largest = error.quantile(part) if part < 1 else error.max()
        assert largest <= bound * b.abs().max(), f'{largest:.3g} of {b.abs().max():.3g}'


def assert_near_gradients(found: Iterable[Tensor], exact: Iterable[Tensor], bound: float) -> None:
    """The same of gradients, of which some are nothing but rounding: biases before a norm have none."""
    found, exact = list(found), list(exact)
    floor = 1e-3 * max(each.abs().max().item() for each in exact)
    for a, b in zip(found, exact, strict=True):
        assert a.shape == b.shape and a.isfinite().all()
        error, largest = (a.cpu().double() - b.cpu().double()).abs().max(), b.abs().max().item()
        assert error <= bound * max(largest, floor), f'{error:.3g} of {largest:.3g}'


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether products and convolutions in float32 may round to TF32."""
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = allowed
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def allocated(device: torch.device) -> int:
    """Bytes of the tensors on a device, once what nobody holds is gone."""
    gc.collect()
    if device.type == 'cuda':
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()
    tensors = (each for each in gc.get_objects() if type(each) in (Tensor, torch.nn.Parameter))
    return sum({each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}.values())
