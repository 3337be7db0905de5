"""mmcv's layers with this package's operators, also if mmcv's own are compiled."""

import sys
from types import ModuleType

import pytest

import mlp_dense.operators
from support.operators import put_in_place


@pytest.fixture
def compiled() -> ModuleType:
    """Return mmcv's compiled operators."""
    if mlp_dense.operators.running() != 'compiled':
        pytest.skip("mmcv's operators are not compiled")
    return sys.modules['mmcv._ext']


@pytest.fixture
def fallback(monkeypatch) -> ModuleType:
    return put_in_place(monkeypatch)
