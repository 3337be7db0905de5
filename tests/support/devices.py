"""Helpers of `tests/cuda`: the device, and comparisons that allow for rounding."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

DEVICE = os.environ.get('MLP_DENSE_CUDA_TESTS') or 'cuda'


def assert_near(computed: Iterable[Tensor], exact: Iterable[Tensor], bound: float, fraction: float = 1.0) -> None:
    """Compare tensors: a `fraction` of the values of each may differ by at most `bound` times its largest value."""
    for a, b in zip(computed, exact, strict=True):
        a, b = a.detach().cpu().double(), b.detach().cpu().double()
        assert a.shape == b.shape and a.isfinite().all()
        error = (a - b).abs().flatten()
        largest = error.quantile(fraction) if fraction < 1 else error.max()
        assert largest <= bound * b.abs().max(), f'{largest:.3g} of {b.abs().max():.3g}'


def assert_near_gradients(computed: Iterable[Tensor], exact: Iterable[Tensor], bound: float) -> None:
    """Compare gradients. Some consist of rounding alone: biases before a norm have no gradient."""
    computed, exact = list(computed), list(exact)
    floor = 1e-3 * max(gradient.abs().max().item() for gradient in exact)
    for a, b in zip(computed, exact, strict=True):
        assert a.shape == b.shape and a.isfinite().all()
        error, largest = (a.cpu().double() - b.cpu().double()).abs().max(), b.abs().max().item()
        assert error <= bound * max(largest, floor), f'{error:.3g} of {largest:.3g}'


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 in float32 products and convolutions."""
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
