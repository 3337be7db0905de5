"""Undocumented attributes of mmengine 0.10 that this package needs, in one place for the next release."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

CONFIG_READERS = ('_file2dict', '_is_lazy_import', '_parse_lazy_import')
"""Functions of mmengine that have the path of the config they read in the variable `filename`."""


def resumes(runner: Any) -> bool:
    """Whether a Runner resumes a training run."""
    return runner._resume


def loaded_file(runner: Any) -> str | None:
    """Return the checkpoint that a Runner loads or resumes."""
    return runner._load_from


def set_iteration(loop: Any, iteration: int) -> None:
    """Let a train loop continue with an iteration."""
    loop._iter = iteration


def update_val_interval(loop: Any) -> None:
    """Let a train loop select the validation interval of its current epoch or iteration."""
    loop._decide_current_val_interval()


def reset_steps(optim_wrapper: Any) -> None:
    """Avoid PyTorch's warning about schedules that are ahead of the optimizer."""
    optim_wrapper._global_step = 0


def save_checkpoint(hook: Any, runner: Any) -> None:
    """Let a CheckpointHook save now."""
    hook._save_checkpoint(runner)


def restart(sampler: Any) -> None:
    """Let an InfiniteSampler start again; an iterator that was used continues at its position."""
    sampler.indices = sampler._indices_of_rank()


@contextmanager
def checkpoint_reader(loader: Any, read: Callable[..., Any]) -> Iterator[None]:
    """Let mmengine's CheckpointLoader read every checkpoint with `read(source, map_location)`."""
    schemes = loader._schemes
    loader._schemes = {'': read}
    try:
        yield
    finally:
        loader._schemes = schemes


def add_config_source(package: str, find: Callable[[str], str]) -> None:
    """Let ``_base_`` and get_config accept ``package::NAME``; `find` returns the path of a name.

    mmengine has a fixed list of packages. In a config that inherits from another package, it looks up types in that
    package. Configs of this package keep the scope that they name themselves, such as mmdet.
    """
    original = Config._get_cfg_path

    def get_path(path: str, filename: str) -> tuple[str, str | None]:
        name = path.removeprefix(f'{package}::')
        return original(path, filename) if name == path else (find(name), None)

    Config._get_cfg_path = staticmethod(get_path)
    # get_config locates the package by this name. The name of the distribution fails in an editable installation.
    MODULE2PACKAGE[package] = f'{package}.errors'
