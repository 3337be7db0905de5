"""mmcv's layers over the operators of this package, also where mmcv's own are compiled."""

import sys
from types import ModuleType

import pytest

import mlp_dense.operators
from support.operators import put_in_place


@pytest.fixture
def compiled() -> ModuleType:
    """mmcv's compiled operators."""
    if mlp_dense.operators.running() != 'compiled':
        pytest.skip("mmcv's operators are not compiled")
    return sys.modules['mmcv._ext']


@pytest.fixture
def stand_in(monkeypatch) -> ModuleType:
    return put_in_place(monkeypatch)
