"""What several test files share."""

import gc
import logging
import os
from pathlib import Path

import mmengine.config.config
import pytest
import torch
from mmengine.logging import MMLogger

import mlp_dense.operators  # noqa: F401  before mmdet
from mlp_dense.backbones import FAMILIES
from mlp_dense.datasets.shapes import write_shapes
from support import checkpoints
from support.configs import ROOT
from support.tools import own_globals

os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # read once, at the first product: for deterministic ones
torch.set_num_threads(1)  # feature maps are small: more threads only wait for each other, above all on a busy machine
mmengine.config.config.FormatCode = lambda text, **_: (text, True)  # yapf: half a second whenever a config is written


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # thousands of tests live as long as the process: no collection need look at them


@pytest.fixture(autouse=True)
def own_globals_of_mmengine():
    """The order of the tests does not matter."""
    with own_globals():
        yield


@pytest.fixture(scope='session')
def shared() -> Path:
    """The folder beside the repository with genuine data."""
    folder = ROOT.parent / 'shared'
    if not folder.is_dir():
        pytest.skip(f'{folder} is absent')
    return folder


@pytest.fixture(params=FAMILIES, ids=lambda cls: cls.__name__)
def family(request) -> type:
    return request.param


@pytest.fixture(scope='session')
def on_cpu() -> None:
    """For what only a CPU promises: equal bits without --deterministic, several processes on any machine."""
    if torch.cuda.is_available():
        pytest.skip('holds on a CPU: run it with CUDA_VISIBLE_DEVICES=')


@pytest.fixture
def as_before():
    """What --deterministic sets for the process holds for one test."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False


@pytest.fixture
def save(tmp_path):
    """Writes a checkpoint; returns its path."""
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
