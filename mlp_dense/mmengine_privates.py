"""Undocumented attributes of mmengine 0.10 that this package needs, in one place for the next release."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

CONFIG_READERS = ('_file2dict', '_is_lazy_import', '_parse_lazy_import')
"""Functions of mmengine that have the path of the config they read in the variable `filename`."""


def resumes(runner: Any) -> bool:
    """Whether a Runner resumes a training."""
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
