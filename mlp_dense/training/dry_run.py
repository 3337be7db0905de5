"""Trial of a training run and its validation (``tools/train.py --dry-run``): memory, time and estimated end."""

import io
import resource
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from datetime import datetime, timedelta
from itertools import islice
from statistics import median
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, Hook
from torch.utils.data import DataLoader

from ..config.config_file import first_line
from ..errors import UserError, counted
from ..mmengine_privates import save_checkpoint
from .console import ConsoleHook
from .loops import validations_left
from .machine import seconds_now
from .runner import build_runner

ITERATIONS = 3  # timed, or a complete cycle of an optimizer that accumulates gradients


def dry_run(cfg: Config) -> str:
    """Run a few iterations and one validation batch of a config from ``for_training``; return what they needed."""
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
        except Exception as error:  # a training run may raise anything
            raise UserError(f'{hook.stage} fails: {first_line(error)} (--debug shows where).') from error
        finally:
            for handler in runner.logger.handlers:
                handler.close()
    stages = 'training and validation work' if runner.val_loop else 'the training works, it has no validation'
    lines = [f'Dry run of {cfg.filename}: {stages}; nothing is written.', *hook.report(runner)]
    return '\n    '.join(lines)


class _Enough(Exception):  # noqa: N818
    """The end of a training run that could continue."""


class _FewIterations(Hook):
    """Measures a few iterations and a batch of the validation, then ends the training."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.stage = 'The training'
        self.steps: list[float] = []  # seconds

    def before_train(self, runner: Any) -> None:
        loop = runner.train_loop
        self.left = loop.max_iters - loop.iter
        self.number = max(ITERATIONS, runner.cfg.optim_wrapper.get('accumulative_counts', 1))
        if runner.val_loop:
            self.validations, self.val_batches = validations_left(loop), len(runner.val_loop.dataloader)
            loop.val_begin = loop.max_iters + 1  # only this hook validates
            runner.val_loop.dataloader.__class__ = _OneBatch
        self.start = seconds_now()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        now = seconds_now()
        self.steps.append(now - self.start)
        self.start = now
        if len(self.steps) == self.number:
            self.after_train(runner)
            raise _Enough

    def after_train(self, runner: Any) -> None:
        if runner.val_loop:
            self.stage, start = 'The validation', seconds_now()
            self.metrics = runner.val_loop.run()
            self.val_seconds = seconds_now() - start
        self.stage = 'Saving a checkpoint'
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook):
                save_checkpoint(hook, runner)

    def report(self, runner: Any) -> Iterator[str]:
        step = median(self.steps[1:] or self.steps)
        yield f'iteration   {step:.2f} s with {counted(runner.cfg.train_dataloader.batch_size, "image")}'
        seconds, validated = self.left * step, ''
        if runner.val_loop:
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


class _OneBatch(DataLoader):
    """A data loader that ends after its first batch."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return islice(super().__iter__(), 1)

    def __len__(self) -> int:
        return 1
