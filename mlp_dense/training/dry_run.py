"""``tools/train.py --dry-run``: whether a training and its validation work, what they need, and how long they take."""

import io
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop

from ..config.reading import first_line
from ..errors import UserError, counted
from .console import ConsoleHook
from .data_order import validations_left
from .runner import build_runner

ITERATIONS, SECONDS = 3, 20
"""How many are run for the time of one, and after how many seconds no further one is begun. An optimizer that collects
gradients over several gets as many."""

GATHERED = Path('.dist_test')  # where mmengine gathers the results of several processes, and leaves the empty folder


def dry_run(cfg: Config) -> str:
    """Builds all that a config adapted by ``for_training`` describes, runs a few iterations of the training and one
    batch of the validation in full size, and leaves nothing behind.

    Returns:
        Memory, times and sizes, as a text of several lines.

    Raises:
        UserError: something fails; the message says what.
    """
    target = next(path for path in (Path(cfg.work_dir), *Path(cfg.work_dir).absolute().parents) if path.exists())
    if not (target.is_dir() and os.access(target, os.W_OK)):
        raise UserError(f'{cfg.work_dir} cannot be written; give another place.')
    free = shutil.disk_usage(target).free
    if 'visualizer' in cfg:
        cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]  # others may write beyond the folder
    if isinstance(saving := cfg.get('default_hooks', {}).get('checkpoint'), dict):
        saving.pop('out_dir', None)
    hook, was_there = _FewIterations(free), GATHERED.exists()
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        runner = build_runner(cfg, ('train', 'val'))
        runner._hooks = [each for each in runner.hooks if not isinstance(each, ConsoleHook)]  # of a real training
        runner.register_hook(hook)
        try:
            with redirect_stdout(io.StringIO()):  # of pycocotools
                runner.train()
        except _Enough:
            pass
        except torch.OutOfMemoryError as error:
            advice = 'take fewer images a batch, or --cfg-options model.backbone.with_cp=True'
            raise UserError(f'{hook.stage} needs more memory than the GPU has; {advice}.') from error
        except UserError:
            raise
        except Exception as error:  # whatever a training can end with
            raise UserError(f'{hook.stage} fails: {first_line(error)} (--debug shows where).') from error
        finally:
            for handler in runner.logger.handlers:
                handler.close()
            if not was_there:
                with suppress(OSError):  # of several processes one removes it
                    GATHERED.rmdir()
    works = 'training and validation work' if runner.val_loop else 'the training works, it has no validation'
    return '\n    '.join([f'Dry run of {cfg.filename}: {works}; nothing is written.', *hook.said])


class _Enough(Exception):
    """Ends a training that could go on."""


class _FewIterations(Hook):
    """Measures a few iterations and a batch of the validation, then ends the training."""

    priority = 'LOWEST'

    def __init__(self, free: int):
        self.free = free  # bytes, where the checkpoints will be
        self.stage, self.steps, self.waits, self.batches, self.said = 'The training', [], [], [], []

    def before_train(self, runner: Any) -> None:
        loop = runner.train_loop
        self.by_epoch = isinstance(loop, EpochBasedTrainLoop)
        self.done, self.left = (loop.epoch if self.by_epoch else loop.iter), loop.max_iters - loop.iter
        if runner.val_loop:
            self.val_batches = len(runner.val_loop.dataloader)
            runner.val_loop.dataloader = _OneBatch(runner.val_loop.dataloader)
        self.mark = _now()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.waits.append(_now() - self.mark)
        self.mark = _now()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.steps.append(_now() - self.mark)
        self.images = _images(data_batch)
        self.loss = float(torch.as_tensor((outputs or {}).get('loss', float('nan'))).detach())
        steps = runner.cfg.optim_wrapper.get('accumulative_counts', 1)
        if len(self.steps) >= steps and (len(self.steps) >= ITERATIONS or sum(self.steps + self.waits) > SECONDS):
            self.after_train(runner)
            raise _Enough
        self.mark = _now()

    def before_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.val_images = _images(data_batch)
        self.batch_mark = _now()

    def after_val_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        self.batches.append(_now() - self.batch_mark)

    def after_val_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        self.metrics = metrics or {}
        wanted = getattr(runner.cfg.get('default_hooks', {}).get('checkpoint'), 'save_best', None) or []
        for key in [wanted] if isinstance(wanted, str) else wanted:
            if self.metrics and key not in self.metrics and key != 'auto':
                found = ', '.join(self.metrics)
                raise UserError(f'default_hooks.checkpoint.save_best is {key}, but the metrics are {found}.')

    def after_val(self, runner: Any) -> None:
        self.mark = _now()

    def after_train(self, runner: Any) -> None:
        if runner.val_loop and not self.batches:
            self.stage = 'The validation'
            runner.val_loop.run()
        self.stage = 'Saving a checkpoint'
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook):
                hook._save_checkpoint(runner)
        self.said = list(self._lines(runner)) if is_main_process() else []

    def _lines(self, runner: Any) -> Iterator[str]:
        step, wait = median(self.steps[1:] or self.steps), median(self.waits[1:] or self.waits)
        images = counted(self.images, 'image')
        yield f'iteration   {step + wait:.2f} s with {images}, of which {wait:.2f} s of waiting for them'
        yield f'loss        {self.loss:.4g}'
        seconds, validated = self.left * (step + wait), ''
        if runner.val_loop:
            times, batch = validations_left(runner.train_loop, self.done), self.batches[0]
            seconds += times * self.val_batches * batch
            validated = f' and {counted(times, "validation")} of {counted(self.val_batches, "batch")}'
            found = ', '.join(self.metrics) or 'no metrics, from one batch'
            yield f'validation  {batch:.2f} s a batch of {counted(self.val_images, "image")}; gives {found}'
        if torch.cuda.is_available():
            used, of = torch.cuda.max_memory_reserved() / 1e9, torch.cuda.get_device_properties().total_memory / 1e9
            yield f'GPU memory  {used:.1f} of {of:.1f} GB'
        yield f'memory      {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:.1f} GB in this process'
        sizes = [path.stat().st_size for path in Path(runner.work_dir).glob('*.pth')]
        yield f'checkpoint  {max(sizes, default=0) / 1e6:.0f} MB; {self.free / 1e9:.0f} GB are free'
        time_left = timedelta(seconds=round(seconds))
        end = (datetime.now() + time_left).isoformat(' ', 'minutes')
        yield f'schedule    {counted(self.left, "iteration")}{validated}: about {time_left}, until {end}'


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


def _images(batch: Any) -> int | str:
    return len(batch['inputs']) if isinstance(batch, dict) and 'inputs' in batch else '?'


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
