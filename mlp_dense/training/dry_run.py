"""Trial of a training and its validation (``tools/train.py --dry-run``): memory, time and estimated end."""

import io
import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, Hook

from ..config.config_file import first_line
from ..errors import UserError, counted
from .console import ConsoleHook
from .loops import validations_left
from .machine import seconds_now
from .runner import build_runner

ITERATIONS, SECONDS = 3, 20
"""Iterations to time, and time limit in seconds. An optimizer that accumulates gradients gets a complete cycle."""


def dry_run(cfg: Config) -> str:
    """Run a few iterations and one validation batch of a config from ``for_training`` at full size.

    No file is left behind.

    Returns:
        Memory, time an iteration and estimated end, as a text of several lines.
    """
    work_dir = Path(cfg.work_dir).absolute()
    target = next(path for path in (work_dir, *work_dir.parents) if path.exists())
    if not (target.is_dir() and os.access(target, os.W_OK)):
        raise UserError(f'{cfg.work_dir} cannot be written; choose another --work-dir.')
    if isinstance(saving := cfg.get('default_hooks', {}).get('checkpoint'), dict):
        saving.pop('out_dir', None)
    hook = _FewIterations()
    with tempfile.TemporaryDirectory() as cfg.work_dir:
        if 'visualizer' in cfg:  # other backends may write outside of the folder
            cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]
        runner = build_runner(cfg, ('train', 'val'))
        runner.hooks[:] = [other for other in runner.hooks if not isinstance(other, ConsoleHook)]
        runner.register_hook(hook)
        try:
            with redirect_stdout(io.StringIO()), suppress(_Enough):  # silence pycocotools
                runner.train()
        except torch.OutOfMemoryError as error:
            advice = 'use fewer images a batch, or --cfg-options model.backbone.with_cp=True'
            raise UserError(f'{hook.stage} needs more memory than the GPU has; {advice}.') from error
        except UserError:
            raise
        except Exception as error:  # a training may raise anything
            raise UserError(f'{hook.stage} fails: {first_line(error)} (--debug shows where).') from error
        finally:
            for handler in runner.logger.handlers:
                handler.close()
    stages = 'training and validation work' if runner.val_loop else 'the training works, it has no validation'
    lines = [f'Dry run of {cfg.filename}: {stages}; nothing is written.', *hook.report(runner)]
    return '\n    '.join(lines)


class _Enough(Exception):  # noqa: N818
    """The end of a training that could continue."""


class _FewIterations(Hook):
    """Measures a few iterations and a batch of the validation, then ends the training."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.stage = 'The training'
        self.steps: list[float] = []  # seconds
        self.val_seconds: float | None = None  # of a batch

    def before_train(self, runner: Any) -> None:
        loop = runner.train_loop
        self.left = loop.max_iters - loop.iter
        if runner.val_loop:
            self.validations, self.val_batches = validations_left(loop), len(runner.val_loop.dataloader)
            runner.val_loop.dataloader = _OneBatch(runner.val_loop.dataloader)
        self.start = seconds_now()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.steps.append(seconds_now() - self.start)
        accumulated = runner.cfg.optim_wrapper.get('accumulative_counts', 1)
        if len(self.steps) >= accumulated and (len(self.steps) >= ITERATIONS or sum(self.steps) > SECONDS):
            self.after_train(runner)
            raise _Enough
        self.start = seconds_now()

    def before_val_epoch(self, runner: Any) -> None:
        self.start = seconds_now()

    def after_val_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        self.val_seconds, self.metrics = seconds_now() - self.start, metrics or {}
        names = ', '.join(self.metrics)
        for hook in runner.hooks:
            for key in getattr(hook, 'save_best', None) or ():
                if names and key not in (*self.metrics, 'auto'):
                    raise UserError(f'default_hooks.checkpoint.save_best is {key}, but the metrics are {names}.')
        self.start = seconds_now()

    def after_train(self, runner: Any) -> None:
        if runner.val_loop and self.val_seconds is None:
            self.stage = 'The validation'
            runner.val_loop.run()
        self.stage = 'Saving a checkpoint'
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook):
                hook._save_checkpoint(runner)

    def report(self, runner: Any) -> Iterator[str]:
        step = median(self.steps[1:] or self.steps)
        yield f'iteration   {step:.2f} s with {counted(runner.cfg.train_dataloader.batch_size, "image")}'
        seconds, validated = self.left * step, ''
        if self.val_seconds is not None:
            seconds += self.validations * self.val_batches * self.val_seconds
            validated = f' and {counted(self.validations, "validation")} of {counted(self.val_batches, "batch")}'
            names = ', '.join(self.metrics) or 'no metrics, from one batch'
            yield f'validation  {self.val_seconds:.2f} s a batch; gives {names}'
        if torch.cuda.is_available():
            used, total = torch.cuda.max_memory_reserved() / 1e9, torch.cuda.get_device_properties().total_memory / 1e9
            yield f'GPU memory  {used:.1f} of {total:.1f} GB'
        yield f'memory      {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:.1f} GB in this process'
        duration = timedelta(seconds=round(seconds))
        end = (datetime.now() + duration).isoformat(' ', 'minutes')
        yield f'end         {counted(self.left, "iteration")}{validated}: about {duration}, until {end}'


class _OneBatch:
    """A data loader that ends after its first batch."""

    def __init__(self, loader: Any):
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return islice(self.loader, 1)

    def __len__(self) -> int:
        return 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)
