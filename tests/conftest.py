"""What several test files share."""

import logging
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger

import mlp_dense
from mlp_dense.backbones import FAMILIES as BACKBONES
from mlp_dense.datasets.shapes import write_shapes
from reference.common import official_shapes, official_weights

torch.set_num_threads(1)  # the maps are small: more threads only wait for each other, above all on a busy machine

ROOT = Path(mlp_dense.__file__).parents[1]
ARCHS = [(cls, arch) for cls in BACKBONES for arch in cls.archs]

SMALL = dict(depths=(2, 2, 4, 1), dims=(8, 12, 20, 24))
"""Fields that every family takes: for tests to which the size does not matter."""


def official(cls: type, arch: dict = SMALL, norms=(0, 1, 2, 3), classes: int = 0) -> dict:
    """A state dict of a family under its official names, with weights large enough for every step to matter."""
    return official_weights(official_shapes(cls.__name__, arch, norms, classes), std=0.1)


def picture(*size: int, **kwargs) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(1), **kwargs)


def loss_of(maps) -> torch.Tensor:
    """A number that every value of every map has its own part in."""
    return sum((x * torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x)).sum() for x in maps)


def differing(state: dict, other: dict) -> list[str]:
    """The names of the tensors that are not the same in two state dicts."""
    return [key for key in state if not torch.equal(state[key], other[key])]


@pytest.fixture(scope='session')
def shared() -> Path:
    """The folder beside the repository with genuine data and the fingerprints of the official modules."""
    folder = ROOT.parent / 'shared'
    if not folder.is_dir():
        pytest.skip(f'{folder} is absent')
    return folder


@pytest.fixture(params=BACKBONES, ids=lambda cls: cls.__name__)
def family(request) -> type:
    return request.param


@pytest.fixture
def save(tmp_path):
    """Writes a checkpoint; returns its path."""
    from support import checkpoints

    return lambda content, name='weights.pth', **kwargs: checkpoints.write(tmp_path / name, content, **kwargs)


@pytest.fixture
def log_lines():
    """The lines that a user of mmengine sees during the test."""

    class Collect(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    lines, handler, logger = [], Collect(), MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


@pytest.fixture(scope='session')
def shapes(tmp_path_factory) -> Path:
    """A small copy of the embedded data set."""
    root = tmp_path_factory.mktemp('data') / 'shapes'
    write_shapes(root, num_train=16, num_val=8, size=96)
    return root


@pytest.fixture
def two_threads():
    """With one thread there is no fast path for training."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
