"""Calls of the tools in this process, or in a new process, whose imports take seconds."""

import gc
import importlib.util
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import torch
from mmengine.logging import MMLogger
from mmengine.utils import ManagerMixin
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from support.configs import ROOT

TOOLS = ROOT / 'tools'
NO_WORKERS = [
    f'{name}_dataloader.{key}'
    for name in ('train', 'val', 'test')
    for key in ('num_workers=0', 'persistent_workers=False')
]
"""Options for --cfg-options: the process itself loads the images."""


def load(file: Path) -> ModuleType:
    """Return the module of a script; it can import modules of its own folder."""
    with patch.object(sys, 'path', [str(file.parent), *sys.path]):
        spec = importlib.util.spec_from_file_location(f'{file.parent.name}_{file.stem}', file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def call(name: str, *args) -> int:
    """Run `tools/NAME.py ARGS` as its command line does; return the exit status."""
    with own_globals(), patch.object(sys, 'argv', [name, *map(str, args)]), patch.dict(os.environ):
        MMLogger._instance_dict.clear()  # a logger of a fixture writes to an earlier stdout
        try:
            runpy.run_path(str(TOOLS / f'{name}.py'), run_name='__main__')
        except SystemExit as error:
            return error.code
        finally:
            for value in gc.get_objects():  # stop loader processes; the garbage collector needs 5 s for each
                if type(value) is _MultiProcessingDataLoaderIter:
                    value._shutdown_workers()
            if not torch.distributed.is_initialized():  # a fork, which ends at once (see `start`)
                gc.collect()
            gc.freeze()  # mmengine collects garbage for every data set; frozen objects are skipped
    return 0


def run(*command, status: int = 0) -> str:
    """Run `python COMMAND` in the repository, check the exit status, and return the output."""
    command = [sys.executable, *map(str, command)]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}  # tests run in parallel already
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert process.returncode == status, process.stdout[-1500:] + process.stderr[-3000:]
    return process.stdout + process.stderr


def log_of(work_dir: Path) -> str:
    """Return the log of the last training."""
    return max(work_dir.glob('*/*.log')).read_text()


def before_training(console: str) -> list[str]:
    """Return the lines before the first logged iteration."""
    lines = console.splitlines()
    return lines[: next(i for i, line in enumerate(lines) if '(train) ' in line)]


@contextmanager
def own_globals() -> Iterator[None]:
    """Restore mmengine's globals afterwards: default scope, loggers, message hubs and visualizers."""
    before = {cls: dict(cls._instance_dict) for cls in _subclasses(ManagerMixin)}
    try:
        yield
    finally:
        for cls in _subclasses(ManagerMixin):
            for name, instance in cls._instance_dict.items():
                if name not in before.get(cls, ()):
                    for handler in getattr(instance, 'handlers', ()):
                        handler.close()
            cls._instance_dict.clear()
            cls._instance_dict.update(before.get(cls, {}))


def _subclasses(cls: type) -> Iterator[type]:
    yield cls
    for child in cls.__subclasses__():
        yield from _subclasses(child)
