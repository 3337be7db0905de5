"""Fixtures that the tests of the backbones share."""

import pytest
import torch

from support.models import SMALL


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def small(family, seeded):
    return family(SMALL)
