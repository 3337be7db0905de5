"""mmengine's Runner, made safe and loud."""

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_state_dict

from ..checkpoints.reading import Checkpoint
from ..errors import CheckpointError, UserError
from .configs import adapt_to_cpu, leaves
from .console import ConsoleFilter, ConsoleHook
from .data import check_built, check_data, explain_empty
from .fit import check_channels
from .launch import start_processes


class DenseRunner(Runner):
    """mmengine's Runner: reads checkpoints safely and loudly, names unreadable images and keeps the console short."""

    fine_tuning = False

    def train(self) -> torch.nn.Module:
        self.fine_tuning = not self._resume
        return super().train()

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        logger, self.console = super().build_logger(*args, **kwargs), ConsoleFilter()
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.addFilter(self.console)
        return logger

    def load_checkpoint(self, filename: str, map_location: Any = 'cpu', strict: bool = False, **_: Any) -> dict:
        """Testing and resuming need every tensor of the model; a training that starts from `load_from` does not."""
        checkpoint = Checkpoint.read(filename, map_location)
        if self._resume and not {'meta', 'optimizer', 'message_hub'} <= checkpoint.content.keys():
            raise CheckpointError(
                f'{filename} holds weights but no state of a training, so nothing can be resumed from it; '
                'start a new training from it with --cfg-options load_from=FILE.'
            )
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint.content)
        model = self.model.module if is_model_wrapper(self.model) else self.model
        load_weights(model, checkpoint, strict=strict or not self.fine_tuning)
        self._has_loaded = True
        self.logger.info(f'Loaded checkpoint {filename}')
        return checkpoint.content

    @staticmethod
    def build_dataloader(dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            with redirect_stdout(io.StringIO()):  # of pycocotools
                loader = Runner.build_dataloader(dataloader, *args, **kwargs)
        except ValueError as error:
            raise explain_empty(dataloader['dataset'], error) from error
        for dataset in leaves(loader.dataset):
            check_built(dataset)
        return loader

    def build_evaluator(self, evaluator: Any) -> Any:
        with redirect_stdout(io.StringIO()):  # of pycocotools
            return super().build_evaluator(evaluator)


@contextmanager
def building() -> Iterator[None]:
    """Around the building of what a config describes: an unknown type is a UserError, and what no user can mend no
    warning."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', '``build_loss``|Default ``avg_non_ignore``', UserWarning)
            yield
    except KeyError as error:
        if 'registry' not in str(error):
            raise
        reason = str(error.args[0]).split(' Please check')[0]
        raise UserError(f'{reason} Is the name in the config right?') from error


def build_runner(cfg: Config, loaders: Sequence[str]) -> DenseRunner:
    """Checks the data of the given loaders, adapts the config to this machine and builds the Runner. UserError: data
    are missing, class counts differ, or a setting is unknown."""
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    for name in loaders:
        check_data(cfg, name)
    if not torch.cuda.is_available():
        adapt_to_cpu(cfg)
    if cfg.launcher != 'none':
        start_processes(cfg)
    if find_spec('tensorboard') and 'visualizer' in cfg:
        cfg.visualizer.vis_backends = [*cfg.visualizer.get('vis_backends', []), dict(type='TensorboardVisBackend')]
    with building():
        runner = DenseRunner.from_cfg(cfg)
    check_channels(runner.model)
    runner.register_hook(ConsoleHook())
    return runner


def load_weights(model: torch.nn.Module, checkpoint: Checkpoint, strict: bool = True) -> None:
    """Loads a checkpoint into a whole detector or segmentor. CheckpointError: it does not fit.

    If not `strict`, heads may differ (mmengine logs how), but never the backbone.
    """
    try:
        load_state_dict(model, checkpoint.weights, strict=strict)
    except RuntimeError as error:
        reason = ' '.join(str(error).split())
        raise CheckpointError(
            f'{checkpoint.source} is not a checkpoint of this model (same config, same number of classes?): '
            f'{reason[:400]}{" ..." if len(reason) > 400 else ""}'
        ) from error
