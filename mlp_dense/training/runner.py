"""mmengine's Runner, made safe and loud."""

import copy
import io
import logging
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger, print_log
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_state_dict

from ..checkpoints.matching import loading
from ..checkpoints.reading import Checkpoint
from ..checks.channels import check_channels
from ..checks.data_check_hook import DataCheckHook
from ..checks.data_config import check_built, check_data, explain_empty
from ..checks.unreadable import SkippingHook, explained
from ..config.reading import adapt_to_cpu, enter_scope, leaves
from ..config.safe_loaders import check_pretrained
from ..config.validation import building, check_settings
from ..errors import CheckpointError, UserError, counted
from .checkpoint_hook import CheckpointHook
from .console import ConsoleFilter, ConsoleHook, ProgressHook, TimedLog
from .data_order import exact_loop, seeded_loader
from .hooks import BalanceHook
from .machine import start_processes, unwrapped
from .resume_hook import ResumeHook
from .run_info import RunHook


class DenseRunner(Runner):
    """mmengine's Runner: reads checkpoints safely and loudly, names unreadable images and keeps the console short."""

    fine_tuning = False

    def train(self) -> torch.nn.Module:
        self.fine_tuning = not self._resume
        saving = next((hook for hook in self.hooks if isinstance(hook, CheckpointHook)), None)
        stoppable = saving.stoppable() if saving else nullcontext()
        with building(self.cfg, running=True), explained(self.rank), stoppable:
            return super().train()

    def test(self) -> dict[str, float]:
        try:
            with building(self.cfg, running=True), explained(self.rank):
                return super().test()
        finally:
            for hook in self.hooks:
                if isinstance(hook, ProgressHook):
                    hook.close(self)

    def _maybe_compile(self, target: str) -> None:
        """Compiles the backbone for training, for each image size. mmengine would compile the whole step: dozens of
        fragments of losses, targets and optimizer, many of them anew for each number of boxes."""
        if not (options := self.cfg.get('compile')):
            return
        backbone = next(module.backbone for module in self.model.modules() if hasattr(module, 'backbone'))
        options = dict(dynamic=False) | (options if isinstance(options, dict) else {})
        plain, compiled = backbone.forward, torch.compile(backbone.forward, **options)
        backbone.forward = lambda x: (compiled if backbone.training else plain)(x)
        self.logger.info('The backbone is compiled: the first iteration of each image size takes long.')

    def build_train_loop(self, loop: Any) -> Any:
        if exact := exact_loop(loop):
            self._train_dataloader = seeded_loader(self._train_dataloader, self.seed)
        loop = super().build_train_loop(exact or loop)
        if not len(loop.dataloader) and not getattr(loop.dataloader.batch_sampler, 'endless', False):
            images, size = counted(len(loop.dataloader.dataset), 'image'), loop.dataloader.batch_sampler.batch_size
            few = f'The training data have {images}, too few for a batch of {size} in'
            advice = 'lower train_dataloader.batch_size, or set drop_last=False there'
            raise UserError(f'{few} {counted(self.world_size, "process")}: {advice}.')
        return loop

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        logger, self.console = super().build_logger(*args, **kwargs), ConsoleFilter()
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.addFilter(self.console)
        return logger

    def build_log_processor(self, log_processor: Any) -> Any:
        if isinstance(log_processor, dict) and log_processor.get('type', 'LogProcessor') == 'LogProcessor':
            return TimedLog(**{key: value for key, value in log_processor.items() if key not in ('type', '_scope_')})
        return super().build_log_processor(log_processor)

    def load_checkpoint(self, filename: str, map_location: Any = 'cpu', strict: bool = False, **_: Any) -> dict:
        """Testing and resuming need every tensor of the model; a training that starts from `load_from` does not."""
        checkpoint = Checkpoint.read(filename, map_location)
        content = checkpoint.training if self._resume else checkpoint.content
        if 'state_dict' not in content:  # mmengine's hooks look for the weights there
            content = dict(content, state_dict=checkpoint.weights)
        self.call_hook('after_load_checkpoint', checkpoint=content)
        model = unwrapped(self.model)
        load_weights(model, replace(checkpoint, content=content), strict=strict or not self.fine_tuning)
        self._has_loaded = True
        self.logger.info(f'Loaded checkpoint {filename}')
        return content

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        try:
            super().resume(filename, *args, **kwargs)
        except UserError:
            raise
        except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CheckpointError(
                f'{filename}: the optimizer, schedule or log in it is not of this config ({reason}); resume with the '
                'config that it was trained with, or start a new training from it with --cfg-options load_from=FILE.'
            ) from error

    @staticmethod
    def build_dataloader(dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            with redirect_stdout(io.StringIO()):  # of pycocotools
                loader = Runner.build_dataloader(dataloader, *args, **kwargs)
        except ValueError as error:
            raise explain_empty(dataloader['dataset'], error) from error
        for dataset in leaves(loader.dataset):
            check_built(dataset)
        loader.generator = torch.Generator()  # else each pass over the data draws one of the training's random numbers
        return loader

    def build_evaluator(self, evaluator: Any) -> Any:
        evaluator = copy.deepcopy(evaluator)
        for metric in evaluator if isinstance(evaluator, list) else [evaluator]:
            if isinstance(metric, dict) and metric.get('type') in ('CocoMetric', 'mmdet.CocoMetric'):
                metric['type'] = 'mlp_dense.CocoMetric'
        with redirect_stdout(io.StringIO()):  # of pycocotools
            return super().build_evaluator(evaluator)


def build_runner(cfg: Config, loaders: Sequence[str]) -> DenseRunner:
    """Checks the data of the given loaders, adapts the config to this machine and builds the Runner. UserError: data
    are missing, class counts differ, or a setting is unknown."""
    enter_scope(cfg)
    check_settings(cfg)
    check_pretrained(cfg)
    for name in loaders:
        check_data(cfg, name)
    if not torch.cuda.is_available():
        adapt_to_cpu(cfg)
    if cfg.launcher != 'none':
        start_processes(cfg)
    if find_spec('tensorboard') and 'visualizer' in cfg:
        cfg.visualizer.vis_backends = [*cfg.visualizer.get('vis_backends', []), dict(type='TensorboardVisBackend')]
    with building(cfg):
        runner = DenseRunner.from_cfg(cfg)
    check_channels(runner.model)
    runner.register_hook(BalanceHook())
    runner.register_hook(RunHook())
    runner.register_hook(DataCheckHook(cfg.get('check_data', False)))
    runner.register_hook(SkippingHook())
    runner.register_hook(ResumeHook())
    runner.register_hook(ConsoleHook())
    runner.register_hook(ProgressHook())
    return runner


def load_weights(model: torch.nn.Module, checkpoint: Checkpoint, strict: bool = True) -> None:
    """Loads a checkpoint into a whole detector or segmentor. CheckpointError: it does not fit.

    If not `strict`, heads may differ (mmengine logs how), but never the backbone.
    """
    if wrong := checkpoint.not_finite:
        print_log(
            f'{checkpoint.source}: {len(wrong)} of its weights are not finite (NaN or infinity), first {wrong[0]}.',
            logger='current',
            level=logging.WARNING,
        )
    try:
        with loading(checkpoint.source):
            load_state_dict(model, checkpoint.weights, strict=strict)
    except RuntimeError as error:
        reason = ' '.join(str(error).split())
        raise CheckpointError(
            f'{checkpoint.source} is not a checkpoint of this model (same config, same number of classes?): '
            f'{reason[:400]}{" ..." if len(reason) > 400 else ""}'
        ) from error
