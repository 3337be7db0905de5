"""Fixtures of several test files."""

import faulthandler
import gc
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mmengine.config.config
import pytest
import torch
from _pytest.faulthandler import fault_handler_stderr_fd_key
from mmengine.logging import MMLogger
from PIL import Image

import mlp_dense.operators  # noqa: F401  before mmdet
from mlp_dense.backbones import FAMILIES
from mlp_dense.datasets.shapes import write_shapes
from support import checkpoints
from support.configs import ROOT
from support.models import SMALL
from support.tools import own_globals

os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # for deterministic products; read at the first one
torch.set_num_threads(1)  # feature maps are small, so more threads only wait for each other
mmengine.config.config.FormatCode = lambda text, **_: (text, True)  # yapf takes half a second for every written config


HANGS = 600  # seconds; the longest test takes 100 on a slow machine


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """End the process of a test that hangs, and print where it does."""
    stderr = item.config.stash[fault_handler_stderr_fd_key]
    faulthandler.dump_traceback_later(HANGS, exit=True, file=stderr)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # collections skip the thousands of tests, which live as long as the process


@pytest.fixture(autouse=True)
def own_globals_of_mmengine():
    """Restore mmengine's globals and seed PyTorch, so that the order of the tests does not matter."""
    torch.manual_seed(0)
    with own_globals():
        yield


@pytest.fixture(scope='session')
def shared() -> Path:
    """Return the folder next to the repository with genuine data."""
    folder = ROOT.parent / 'shared'
    if not folder.is_dir():
        pytest.skip(f'{folder} is absent')
    return folder


@pytest.fixture(params=FAMILIES, ids=lambda cls: cls.__name__)
def family(request) -> type:
    return request.param


@pytest.fixture
def small(family, own_globals_of_mmengine) -> torch.nn.Module:
    return family(SMALL)


@pytest.fixture(scope='session')
def on_cpu() -> None:
    """Skip on a GPU: equal bits without --deterministic and several processes are only guaranteed on a CPU."""
    if torch.cuda.is_available():
        pytest.skip('needs a CPU: set CUDA_VISIBLE_DEVICES=')


@pytest.fixture
def as_before():
    """Undo after a test what --deterministic sets for the process."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False


@pytest.fixture
def save(tmp_path):
    """Return a function that writes a checkpoint and returns its path."""
    return lambda content, name='weights.pth', **kwargs: checkpoints.write(tmp_path / name, content, **kwargs)


@pytest.fixture
def log_lines():
    """Collect the lines that mmengine logs during the test."""

    class Collect(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    lines, handler, logger = [], Collect(), MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


@pytest.fixture(scope='session')
def shapes(tmp_path_factory) -> Path:
    """Write a small copy of the generated data set."""
    root = tmp_path_factory.mktemp('data') / 'shapes'
    write_shapes(root, num_train=16, num_val=8, size=96)
    return root


@pytest.fixture
def one_process(monkeypatch):
    """Make reports without other processes, which import for a second each; `reports/test_making.py` starts them."""
    monkeypatch.setattr('mlp_dense.reports.making.processes', lambda: ThreadPoolExecutor(1))


@pytest.fixture
def two_threads():
    """Run a test with two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def write_files(tmp_path):
    """Return a function that writes files by path: texts, bytes, and images for sizes (width, height)."""

    def write(files: dict[str, str | bytes | tuple[int, int]], root: Path = tmp_path / 'data') -> Path:
        for name, content in files.items():
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, tuple):
                Image.effect_noise(content, 60).save(file)
            else:
                file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return root

    return write
