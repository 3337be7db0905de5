"""Console output of a training run or a test. The log file contains everything."""

import logging
import re
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import LogProcessor
from rich.progress import Progress

from .. import operators
from ..datasets.layout import leaves
from ..errors import command, counted
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


class ConsoleFilter(logging.Filter):
    """A filter that hides useless messages and, unless it is open, all but warnings and records with `console`."""

    def __init__(self, is_open: bool = False):
        super().__init__()
        self.is_open = is_open

    def filter(self, record: logging.LogRecord) -> bool:
        passes = self.is_open or record.levelno >= logging.WARNING or hasattr(record, 'console')
        return passes and not record.getMessage().startswith(USELESS)


@HOOKS.register_module()
class ConsoleHook(Hook):
    """Logs model, data, weights and folders before a training run or test, and the next command after a training run.

    While a test runs in a terminal, a progress bar replaces the lines of the log.
    """

    priority = 'LOWEST'  # after the hooks whose messages belong in the log file
    bar: Progress | None = None

    def before_train(self, runner: Any) -> None:
        self.start = time.monotonic()
        cfg, loop = runner.cfg, runner.train_loop
        epochs = f' ({counted(loop.max_epochs, "epoch")})' if loop.max_epochs > 1 else ''
        batch = f'{runner.world_size} x {counted(cfg.train_dataloader.batch_size, "image")}'
        self._open(runner, 'Training', loop.dataloader, f'{counted(loop.max_iters, "iteration")}{epochs} of {batch}')
        pretrained = cfg.model.backbone.get('init_cfg') or cfg.get('load_from')
        if not pretrained and task_of(cfg.get('default_scope')).dense:
            runner.logger.warning(
                'The backbone starts from random weights. Published recipes start from ImageNet weights: --cfg-options '
                'model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=FILE_OR_URL'
            )

    def before_test(self, runner: Any) -> None:
        self._open(runner, 'Testing', runner.test_dataloader)
        if sys.stdout.isatty() and is_main_process():
            self.bar, runner.console.is_open = Progress(), False
            self.task = self.bar.add_task('testing', total=len(runner.test_dataloader))
            self.bar.start()

    def after_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self.bar:
            self.bar.advance(self.task)
            if batch_idx + 1 == len(runner.test_dataloader):  # the metrics are printed next
                self.close(runner)

    def close(self, runner: Any) -> None:
        """Replace the progress bar by the lines of the log again."""
        if self.bar:
            self.bar.stop()
            self.bar, runner.console.is_open = None, True

    def after_train(self, runner: Any) -> None:
        info = runner.message_hub.runtime_info
        lines = [f'Trained in {timedelta(seconds=round(time.monotonic() - self.start))}.']
        if best := info.get('best_ckpt'):
            metric = runner.cfg.default_hooks.checkpoint.save_best
            lines.append(f'Best checkpoint: {best} ({metric} {info["best_score"]:.4g})')
        if checkpoint := best or info.get('last_ckpt'):
            # The config in the work dir contains the data root and the options of the training.
            config = Path(runner.work_dir, Path(runner.cfg.filename).name)
            report = Path(runner.work_dir, 'report')
            lines.append(f'Next: {command("test")} {config} {checkpoint} --report {report}')
        runner.logger.info('\n    '.join(lines))

    def _open(self, runner: Any, action: str, loader: Any, schedule: str = '') -> None:
        runner.console.is_open = True
        model, cfg = unwrapped(runner.model), runner.cfg.model.get('module', runner.cfg.model)
        backbone = cfg.get('model', cfg).backbone  # an exported model keeps the config of the original in `model`
        arch = backbone.arch if isinstance(backbone.get('arch'), str) else 'of custom size'
        millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        data = ', '.join(type(dataset).__name__ for dataset in leaves(loader.dataset))
        weights = runner.cfg.get('load_from') or cfg.get('file')
        lines = [
            f'{action} {runner.cfg.filename}',
            f'model    {type(model).__name__}, {backbone.type} {arch}',
            f'data     {counted(len(loader.dataset), "image")} of {data}',
            f'weights  {weights or (backbone.get("init_cfg") or {}).get("checkpoint", "random")}',
            f'output   {runner.work_dir}',
            f'log      {runner.log_dir}/{runner.timestamp}.log',
        ]
        if 'file' not in cfg:
            lines[1] += f', {millions:.1f} M parameters'
        if schedule:
            lines[2] += f'; validated on {len(runner.val_dataloader.dataset)}' if runner.val_loop else ''
            lines[3] += f', at epoch {runner.epoch}, iteration {runner.iter}' if runner.iter else ''
            lines.insert(4, f'schedule {schedule}')
        runner.logger.info('\n    '.join(lines))
        if task_of(runner.cfg.get('default_scope')).dense:  # classifiers need no operator of mmcv
            operators.announce()


@LOG_PROCESSORS.register_module()
class TimedLog(LogProcessor):
    """A LogProcessor of mmengine that adds the date at which the training will end ("after" it before a validation)."""

    def get_log_after_iter(self, runner: Any, batch_idx: int, mode: str) -> tuple[dict, str]:
        tag, text = super().get_log_after_iter(runner, batch_idx, mode)
        hub = runner.message_hub
        if mode == 'train' and 'eta' in hub.runtime_info:
            loop, times = runner.train_loop, hub.log_scalars.get('val/time')  # seconds a batch
            left = validations_left(loop) if runner.val_loop else 0
            seconds = left * len(runner.val_loop.dataloader) * times.mean() if left and times else 0
            end = datetime.now() + timedelta(seconds=hub.get_info('eta') + seconds)
            after = 'after ' if left and not times else ''
            text = re.sub('(eta: .+?)  ', rf'\1  end: {after}{end.isoformat(" ", "minutes")}  ', text, count=1)
        return tag, text
