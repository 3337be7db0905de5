"""What a training or a test says on the console. The log file gets everything."""

import logging
import os
import re
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, LogProcessor
from rich.progress import Progress

from .. import operators
from ..config.reading import leaves
from ..errors import counted
from ..tasks import task_of
from .data_order import validations_left
from .machine import unwrapped

USELESS = (  # what mmengine says of itself, and nobody can mend
    '"FileClient" will be deprecated in future',
    '"HardDiskBackend" is the alias of "LocalBackend"',
    'The prefix is not set in metric class',
    'Exp name: ',
    'Resumed iteration number is not divisible by',  # but the gradients come back
)


LINES_OF_A_TEST = ('Epoch(test)', 'Iter(test)')


class ConsoleFilter(logging.Filter):
    """Lets warnings and records marked ``console`` pass, and once it is open everything but what is useless, or what a
    bar shows."""

    is_open = has_bar = False

    def filter(self, record: logging.LogRecord) -> bool:
        wanted = self.is_open or record.levelno >= logging.WARNING or getattr(record, 'console', False)
        unwanted = USELESS + (LINES_OF_A_TEST if self.has_bar else ())
        return wanted and not record.getMessage().startswith(unwanted)


def busy_machine(processes: int) -> str | None:
    """What to do, if the machine has more to compute than this run, of so many processes, explains; None if it has not,
    or if no threads of this run wait for each other."""
    try:
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
    except OSError:  # the system does not say
        return None
    if load - processes < cores / 2 or torch.get_num_threads() == 1:
        return None
    if os.environ.get('OMP_WAIT_POLICY', '').lower() == 'passive':
        return None
    return (
        f'Something else computes on this machine: its load is {load:.1f} with {counted(cores, "core")}. Threads that '
        'wait for each other then slow a training down many times; OMP_WAIT_POLICY=passive before the command helps.'
    )


class ConsoleHook(Hook):
    """Says what is trained or tested on what, from which weights and where to, and at the end what to do next."""

    priority = 'LOWEST'  # after the hooks whose lines are for the log file

    def before_train(self, runner: Any) -> None:
        self.start = time.monotonic()
        cfg, loop = runner.cfg, runner.train_loop
        epochs = f' ({counted(loop.max_epochs, "epoch")})' if loop.max_epochs > 1 else ''
        batch = f'{runner.world_size} x {counted(cfg.train_dataloader.batch_size, "image")}'
        length = f'{counted(loop.max_iters, "iteration")}{epochs} of {batch}'
        self._open(runner, 'Training', loop.dataloader, length)
        starts = cfg.model.backbone.get('init_cfg') or cfg.get('load_from')
        if not starts and task_of(cfg.get('default_scope')).dense:
            runner.logger.warning(
                'The backbone starts from random weights. Published recipes start from ImageNet weights: --cfg-options '
                'model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=FILE_OR_URL'
            )
        if not torch.cuda.is_available() and (hint := busy_machine(runner.world_size)):
            runner.logger.warning(hint)

    def before_test(self, runner: Any) -> None:
        self._open(runner, 'Testing', runner.test_dataloader)

    def after_train(self, runner: Any) -> None:
        found = runner.message_hub.runtime_info
        lines = [f'Trained in {timedelta(seconds=round(time.monotonic() - self.start))}.']
        if best := found.get('best_ckpt'):
            metric = runner.cfg.default_hooks.checkpoint.save_best
            lines.append(f'Best checkpoint: {best} ({metric} {found["best_score"]:.4g})')
        if checkpoint := best or found.get('last_ckpt'):
            # The config as it was trained, with its data root and options.
            config = Path(runner.work_dir, Path(runner.cfg.filename).name)
            lines.append(f'Next: python tools/test.py {config} {checkpoint}')
        runner.logger.info('\n    '.join(lines))

    def _open(self, runner: Any, action: str, loader: Any, schedule: str = '') -> None:
        runner.console.is_open = True
        model = unwrapped(runner.model)
        cfg = runner.cfg.model.get('module', runner.cfg.model)
        backbone = cfg.get('model', cfg).backbone  # `model`: of an exported one
        arch = backbone.arch if isinstance(backbone.get('arch'), str) else 'of custom size'
        parameters = sum(parameter.numel() for parameter in model.parameters())
        size = '' if 'file' in cfg else f', {parameters / 1e6:.1f} M parameters'
        data = ', '.join(type(dataset).__name__ for dataset in leaves(loader.dataset))
        validated = f'; validated on {len(runner.val_dataloader.dataset)}' if schedule and runner.val_loop else ''
        given = runner.cfg.get('load_from') or cfg.get('file')
        weights = given or (backbone.get('init_cfg') or {}).get('checkpoint', 'random')
        at = f', at epoch {runner.epoch}, iteration {runner.iter}' if schedule and runner.iter else ''
        runner.logger.info(
            f'{action} {runner.cfg.filename}\n'
            f'    model    {type(model).__name__}, {backbone.type} {arch}{size}\n'
            f'    data     {counted(len(loader.dataset), "image")} of {data}{validated}\n'
            f'    weights  {weights}{at}\n'
            + (f'    schedule {schedule}\n' if schedule else '')
            + f'    output   {runner.work_dir}\n'
            f'    log      {runner._log_dir}/{runner.timestamp}.log'
        )
        if task_of(runner.cfg.get('default_scope')).dense:
            operators.announce()


class TimedLog(LogProcessor):
    """mmengine's lines, with the time of day and the date at which the whole training will end beside the `eta`, which
    leaves out validations. Before the first was measured, the end is said to be after that time."""

    def get_log_after_iter(self, runner: Any, batch_idx: int, mode: str) -> tuple[dict, str]:
        tag, text = super().get_log_after_iter(runner, batch_idx, mode)
        eta = runner.message_hub.runtime_info.get('eta')
        hook = next((each for each in runner.hooks if isinstance(each, ProgressHook)), None)
        if mode == 'train' and eta is not None and hook:
            text = re.sub(r'(eta: .+?)  ', rf'\1  end: {hook.end(runner, eta)}  ', text, count=1)
        return tag, text


class ProgressHook(Hook):
    """Measures validations, and shows one bar for a test instead of lines where the output is a terminal."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.validations: list[float] = []  # seconds
        self.bar: Progress | None = None

    def end(self, runner: Any, eta: float) -> str:
        """When a training ends of which `eta` seconds of iterations remain."""
        loop = runner.train_loop
        left = 0
        if runner.val_loop:
            left = validations_left(loop, loop.epoch if isinstance(loop, EpochBasedTrainLoop) else loop.iter)
        seconds = eta + left * (mean(self.validations) if self.validations else 0)
        at = (datetime.now() + timedelta(seconds=seconds)).isoformat(' ', 'minutes')
        return at if self.validations or not left else f'after {at}'

    def before_val(self, runner: Any) -> None:
        self.mark = time.monotonic()

    def after_val(self, runner: Any) -> None:
        self.validations.append(time.monotonic() - self.mark)

    def before_test(self, runner: Any) -> None:
        if sys.stdout.isatty() and is_main_process():
            self.bar, runner.console.has_bar = Progress(), True
            self.task = self.bar.add_task('testing', total=len(runner.test_loop.dataloader))
            self.bar.start()

    def after_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self.bar:
            self.bar.advance(self.task)
            if batch_idx + 1 == len(runner.test_loop.dataloader):  # the metrics are printed next
                self.close(runner)

    def close(self, runner: Any) -> None:
        """Gives the terminal back."""
        if self.bar:
            self.bar.stop()
            self.bar, runner.console.has_bar = None, False
