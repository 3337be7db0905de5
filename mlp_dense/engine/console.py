"""What a training or a test says on the console. The log file gets everything."""

import logging
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from .. import operators
from .configs import leaves
from .tasks import CLASSIFICATION

USELESS = (  # what mmengine says of itself, and nobody can mend
    '"FileClient" will be deprecated in future',
    '"HardDiskBackend" is the alias of "LocalBackend"',
    'The prefix is not set in metric class',
    'Exp name: ',
    'Resumed iteration number is not divisible by',  # but the gradients come back
)


class ConsoleFilter(logging.Filter):
    """Lets warnings and records marked ``console`` pass, and once it is open everything but what is useless."""

    is_open = False

    def filter(self, record: logging.LogRecord) -> bool:
        wanted = self.is_open or record.levelno >= logging.WARNING or getattr(record, 'console', False)
        return wanted and not record.getMessage().startswith(USELESS)


class ConsoleHook(Hook):
    """Says what is trained or tested on what, from which weights and where to, and at the end what to do next."""

    priority = 'LOWEST'  # after the hooks whose lines are for the log file

    def before_train(self, runner: Any) -> None:
        self.start = time.monotonic()
        cfg, loop = runner.cfg, runner.train_loop
        epochs = f' ({loop.max_epochs} epochs)' if loop.max_epochs > 1 else ''
        batch = f'{runner.world_size} x {cfg.train_dataloader.batch_size} images'
        self._open(runner, 'Training', loop.dataloader, f'{loop.max_iters} iterations{epochs} of {batch}')
        starts = cfg.model.backbone.get('init_cfg') or cfg.get('load_from')
        if not starts and cfg.get('default_scope') != CLASSIFICATION.scope:
            runner.logger.warning(
                'The backbone starts from random weights. Published recipes start from ImageNet weights: --cfg-options '
                'model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=FILE_OR_URL'
            )

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
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
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
            f'    data     {len(loader.dataset)} images of {data}{validated}\n'
            f'    weights  {weights}{at}\n'
            + (f'    schedule {schedule}\n' if schedule else '')
            + f'    output   {runner.work_dir}\n'
            f'    log      {runner._log_dir}/{runner.timestamp}.log'
        )
        if runner.cfg.get('default_scope') != CLASSIFICATION.scope:  # which needs none
            operators.announce()
