"""Runs the tools: in this process, which costs nothing, or in one of their own, which costs seconds for its imports."""

import gc
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

from mmengine.utils import ManagerMixin
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from support.configs import ROOT

TOOLS = ROOT / 'tools'
NO_WORKERS = [
    f'{name}_dataloader.{key}'
    for name in ('train', 'val', 'test')
    for key in ('num_workers=0', 'persistent_workers=False')
]
"""For --cfg-options: images are read in the process itself."""


def load(file: Path) -> ModuleType:
    """The module of a script, which finds the files beside it."""
    with patch.object(sys, 'path', [str(file.parent), *sys.path]):
        spec = importlib.util.spec_from_file_location(f'{file.parent.name}_{file.stem}', file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def call(name: str, *args) -> int:
    """Runs `tools/NAME.py ARGS` as its command line would; returns the exit status."""
    with own_globals(), patch.object(sys, 'argv', [name, *map(str, args)]), patch.dict(os.environ):
        tool = load(TOOLS / f'{name}.py')
        try:
            tool.run_tool(tool.main)
        except SystemExit as error:
            return error.code
        finally:
            for each in gc.get_objects():  # ends the processes that read images: collected in a cycle, each takes 5 s
                if type(each) is _MultiProcessingDataLoaderIter:
                    each._shutdown_workers()
            gc.collect()
            gc.freeze()  # mmengine collects for every data set: it need not look at what stays
    return 0


def run(*command, status: int = 0) -> str:
    """Runs `python COMMAND` in the repository; returns its output and checks its exit status."""
    command = [sys.executable, *map(str, command)]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}  # more threads only wait for those of other tests
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stdout[-1500:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def log_of(work_dir: Path) -> str:
    """The log of the last training."""
    return max(work_dir.glob('*/*.log')).read_text()


def before_training(console: str) -> list[str]:
    """The lines before that of the first iterations."""
    lines = console.splitlines()
    return lines[: next(i for i, line in enumerate(lines) if '(train) ' in line)]


@contextmanager
def own_globals() -> Iterator[None]:
    """What mmengine keeps for a whole process (default scope, loggers, message hubs, visualizers) is as before."""
    before = {kind: dict(kind._instance_dict) for kind in _kinds(ManagerMixin)}
    try:
        yield
    finally:
        for kind in _kinds(ManagerMixin):
            for name, instance in kind._instance_dict.items():
                if name not in before.get(kind, ()):
                    for handler in getattr(instance, 'handlers', ()):
                        handler.close()
            kind._instance_dict.clear()
            kind._instance_dict.update(before.get(kind, {}))


def _kinds(kind: type) -> Iterator[type]:
    yield kind
    for child in kind.__subclasses__():
        yield from _kinds(child)
