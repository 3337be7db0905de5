"""Console output of a training or a test. The log file contains everything."""

import logging
import re
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from statistics import mean
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, LogProcessor
from rich.progress import Progress

from .. import operators
from ..datasets.layout import leaves
from ..errors import counted
from ..registry import HOOKS, LOG_PROCESSORS
from ..tasks import task_of
from .loops import validations_left
from .machine import unwrapped

USELESS = (  # messages of mmengine about itself, which no user can act on
    '"FileClient" will be deprecated in future',
    '"HardDiskBackend" is the alias of "LocalBackend"',
    'The prefix is not set in metric class',
    'Exp name: ',
    'Resumed iteration number is not divisible by',  # the waiting gradients are restored
)
LINES_OF_A_TEST = ('Epoch(test)', 'Iter(test)')


class ConsoleFilter(logging.Filter):
    """A filter that hides useless messages and, until it is open, all but warnings and records with `console`."""

    def __init__(self, is_open: bool = False):
        super().__init__()
        self.is_open, self.hidden = is_open, USELESS

    def filter(self, record: logging.LogRecord) -> bool:
        passes = self.is_open or record.levelno >= logging.WARNING or getattr(record, 'console', False)
        return passes and not record.getMessage().startswith(self.hidden)


@HOOKS.register_module()
class ConsoleHook(Hook):
    """Logs model, data, weights and folders before a training or test, and the next command after a training."""

    priority = 'LOWEST'  # after the hooks whose messages belong in the log file

    def before_train(self, runner: Any) -> None:
        self.start = time.monotonic()
        cfg, loop = runner.cfg, runner.train_loop
        epochs = f' ({counted(loop.max_epochs, "epoch")})' if loop.max_epochs > 1 else ''
        batch = f'{runner.world_size} x {counted(cfg.train_dataloader.batch_size, "image")}'
        length = f'{counted(loop.max_iters, "iteration")}{epochs} of {batch}'
        self._open(runner, 'Training', loop.dataloader, length)
        pretrained = cfg.model.backbone.get('init_cfg') or cfg.get('load_from')
        if not pretrained and task_of(cfg.get('default_scope')).dense:
            runner.logger.warning(
                'The backbone starts from random weights. Published recipes start from ImageNet weights: --cfg-options '
                'model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=FILE_OR_URL'
            )

    def before_test(self, runner: Any) -> None:
        self._open(runner, 'Testing', runner.test_dataloader)

    def after_train(self, runner: Any) -> None:
        info = runner.message_hub.runtime_info
        lines = [f'Trained in {timedelta(seconds=round(time.monotonic() - self.start))}.']
        if best := info.get('best_ckpt'):
            metric = runner.cfg.default_hooks.checkpoint.save_best
            lines.append(f'Best checkpoint: {best} ({metric} {info["best_score"]:.4g})')
        if checkpoint := best or info.get('last_ckpt'):
            # The config in the work dir contains the data root and the options of the training.
            config = Path(runner.work_dir, Path(runner.cfg.filename).name)
            lines.append(f'Next: python tools/test.py {config} {checkpoint}')
        runner.logger.info('\n    '.join(lines))

    def _open(self, runner: Any, action: str, loader: Any, schedule: str = '') -> None:
        runner.console.is_open = True
        model = unwrapped(runner.model)
        cfg = runner.cfg.model.get('module', runner.cfg.model)
        backbone = cfg.get('model', cfg).backbone  # an exported model keeps the config of the original in `model`
        arch = backbone.arch if isinstance(backbone.get('arch'), str) else 'of custom size'
        parameters = sum(parameter.numel() for parameter in model.parameters())
        size = '' if 'file' in cfg else f', {parameters / 1e6:.1f} M parameters'
        data = ', '.join(type(dataset).__name__ for dataset in leaves(loader.dataset))
        validated = f'; validated on {len(runner.val_dataloader.dataset)}' if schedule and runner.val_loop else ''
        source = runner.cfg.get('load_from') or cfg.get('file')
        weights = source or (backbone.get('init_cfg') or {}).get('checkpoint', 'random')
        at = f', at epoch {runner.epoch}, iteration {runner.iter}' if schedule and runner.iter else ''
        runner.logger.info(
            f'{action} {runner.cfg.filename}\n'
            f'    model    {type(model).__name__}, {backbone.type} {arch}{size}\n'
            f'    data     {counted(len(loader.dataset), "image")} of {data}{validated}\n'
            f'    weights  {weights}{at}\n'
            + (f'    schedule {schedule}\n' if schedule else '')
            + f'    output   {runner.work_dir}\n'
            f'    log      {runner.log_dir}/{runner.timestamp}.log'
        )
        if task_of(runner.cfg.get('default_scope')).dense:  # classifiers need no operator of mmcv
            operators.announce()


@LOG_PROCESSORS.register_module()
class TimedLog(LogProcessor):
    """A LogProcessor of mmengine that adds the date at which the training will end, validations included."""

    def get_log_after_iter(self, runner: Any, batch_idx: int, mode: str) -> tuple[dict, str]:
        tag, text = super().get_log_after_iter(runner, batch_idx, mode)
        eta = runner.message_hub.runtime_info.get('eta')
        hook = next((hook for hook in runner.hooks if isinstance(hook, ProgressHook)), None)
        if mode == 'train' and eta is not None and hook:
            text = re.sub(r'(eta: .+?)  ', rf'\1  end: {hook.end(runner, eta)}  ', text, count=1)
        return tag, text


@HOOKS.register_module()
class ProgressHook(Hook):
    """Measures validations, and shows a progress bar instead of lines while a test runs in a terminal."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.validations: list[float] = []  # seconds
        self.bar: Progress | None = None

    def end(self, runner: Any, eta: float) -> str:
        """Return the end of a training with `eta` seconds of iterations left ("after" it before a validation)."""
        loop = runner.train_loop
        done = loop.epoch if isinstance(loop, EpochBasedTrainLoop) else loop.iter
        left = validations_left(loop, done) if runner.val_loop else 0
        seconds = eta + left * (mean(self.validations) if self.validations else 0)
        end = (datetime.now() + timedelta(seconds=seconds)).isoformat(' ', 'minutes')
        return end if self.validations or not left else f'after {end}'

    def before_val(self, runner: Any) -> None:
        self.start = time.monotonic()

    def after_val(self, runner: Any) -> None:
        self.validations.append(time.monotonic() - self.start)

    def before_test(self, runner: Any) -> None:
        if sys.stdout.isatty() and is_main_process():
            self.bar, runner.console.hidden = Progress(), USELESS + LINES_OF_A_TEST
            self.task = self.bar.add_task('testing', total=len(runner.test_loop.dataloader))
            self.bar.start()

    def after_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self.bar:
            self.bar.advance(self.task)
            if batch_idx + 1 == len(runner.test_loop.dataloader):  # the metrics are printed next
                self.close(runner)

    def close(self, runner: Any) -> None:
        if self.bar:
            self.bar.stop()
            self.bar, runner.console.hidden = None, USELESS
