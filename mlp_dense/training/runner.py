"""Runner of mmengine with safe checkpoints, explained errors and a check of what it builds."""

import copy
import io
import logging
import textwrap
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import master_only
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_state_dict

from ..checkpoints.matching import loading, warn_if_not_finite
from ..checkpoints.reading import Checkpoint
from ..checks.band_agreement import check_bands, guard_bands
from ..checks.channels import check_channels
from ..checks.data_config import check_built, check_data, copy_before_packing
from ..checks.explained_data import explained_data
from ..checks.missing_operators import check_operators
from ..config.config_file import enter_scope, first_line
from ..config.validation import building, check_backends, check_pretrained, check_settings
from ..datasets.layout import leaves
from ..errors import CheckpointError, UserError
from ..outputs import check_file, write_listed
from ..registry import RUNNERS
from .checkpoint_hook import CheckpointHook, resume_from
from .console import ConsoleFilter, ConsoleHook
from .machine import adapt_to_machine, unwrapped
from .trained_with import warn_if_resumed_with_others, warn_if_used_with_others


@RUNNERS.register_module()
class DenseRunner(Runner):
    """mmengine's Runner that reads checkpoints safely, explains errors in a config and adapts to the machine.

    A config selects it with ``runner_type='mlp_dense.DenseRunner'``.
    """

    fine_tuning = False

    @classmethod
    def from_cfg(cls, cfg: Config) -> 'DenseRunner':
        """Build a Runner from a config, after the changes that this machine and a resumed training run need."""
        cfg = copy.deepcopy(cfg)
        adapt_to_machine(cfg)
        if cfg.get('resume'):
            resume_from(cfg)
        with building(cfg):
            runner = super().from_cfg(cfg)
        check_channels(runner.model)
        check_operators(runner.model)
        guard_bands(unwrapped(runner.model))
        return runner

    def train(self) -> torch.nn.Module:
        self._write_config(self.work_dir)
        self.fine_tuning = not self._resume
        saving = next((hook for hook in self.hooks if isinstance(hook, CheckpointHook)), None)
        stoppable = saving.stoppable() if saving else nullcontext()
        with building(self.cfg, running=True), stoppable:
            return super().train()

    def test(self) -> dict[str, float]:
        self._write_config(self.log_dir)
        try:
            with building(self.cfg, running=True):
                return super().test()
        finally:
            for hook in self.hooks:
                if isinstance(hook, ConsoleHook):
                    hook.close(self)

    def build_train_loop(self, loop: Any) -> Any:
        """Build the train loop; a `type` overrides an inherited `by_epoch`, which mmengine refuses to combine."""
        if isinstance(loop, dict) and 'type' in loop:
            loop = {key: value for key, value in loop.items() if key != 'by_epoch'}
        return super().build_train_loop(loop)

    def _maybe_compile(self, target: str) -> None:
        """Compile the backbone for training, once for each image size.

        mmengine would compile the complete step: many fragments of losses, targets and optimizer, most of them again
        for each number of boxes.
        """
        if not (options := self.cfg.get('compile')):
            return
        backbone = next(module.backbone for module in self.model.modules() if hasattr(module, 'backbone'))
        options = dict[str, Any](dynamic=False) | (options if isinstance(options, dict) else {})
        eager, compiled = backbone.forward, torch.compile(backbone.forward, **options)
        backbone.forward = lambda x: (compiled if backbone.training else eager)(x)
        self.logger.info('The backbone is compiled: the first iteration of each image size takes long.')

    def dump_config(self) -> None:
        """Write nothing yet: a training run writes its config into the work dir, and a test next to its log.

        The config in the work dir is that of the checkpoints, which a test with other options must not replace.
        """

    @master_only
    def _write_config(self, folder: str) -> None:
        file = Path(folder, Path(self.cfg.filename or f'{self.timestamp}.py').name)
        try:
            check_file(file)
        except UserError:
            self.logger.info(f'{file} was not written by mlp_dense and stays; the config is in {self.log_dir}.')
            file = Path(self.log_dir, file.name)
        write_listed(file, self.cfg.dump())

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger; a ConsoleHook opens the console only after the setup."""
        logger = super().build_logger(*args, **kwargs)
        hooks = [*(self.cfg.get('default_hooks') or {}).values(), *(self.cfg.get('custom_hooks') or ())]
        opens = any(isinstance(hook, dict) and hook.get('type') == 'mlp_dense.ConsoleHook' for hook in hooks)
        self.console = ConsoleFilter(is_open=not opens)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.addFilter(self.console)
        return logger

    def load_checkpoint(self, filename: str, map_location: Any = 'cpu', strict: bool = False, **_: Any) -> dict:
        """Load a checkpoint; only a training run that starts from `load_from` may lack tensors of the model."""
        checkpoint = Checkpoint.read(filename, map_location)
        if self._resume:
            warn_if_resumed_with_others(self.cfg, checkpoint)
        elif not self.fine_tuning:
            warn_if_used_with_others(self.cfg, checkpoint)
        content = checkpoint.training if self._resume else checkpoint.content
        if 'state_dict' not in content:  # the hooks of mmengine expect the weights there
            content = dict(content, state_dict=checkpoint.weights)
        self.call_hook('after_load_checkpoint', checkpoint=content)
        checkpoint = replace(checkpoint, content=content)
        load_weights(unwrapped(self.model), checkpoint, strict=strict or not self.fine_tuning)
        self._has_loaded = True
        self.logger.info(f'Loaded checkpoint {filename}')
        return content

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Load a checkpoint with its optimizer, schedules and log."""
        try:
            super().resume(filename, *args, **kwargs)
        except UserError:
            raise
        except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            problem = f'its optimizer, schedule or log does not fit this config ({first_line(error)})'
            raise CheckpointError(
                f'{filename}: {problem}. Resume with the config that it was trained with, or start a new training run '
                'with --cfg-options load_from=FILE.'
            ) from error

    @staticmethod
    def build_dataloader(dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        """Build a data loader and check its data sets."""
        with redirect_stdout(io.StringIO()), explained_data(dataloader):  # silence pycocotools
            loader = Runner.build_dataloader(dataloader, *args, **kwargs)
        for dataset in leaves(loader.dataset):
            check_built(dataset)
        copy_before_packing(loader.dataset)
        loader.generator = torch.Generator()  # else each pass over the data draws a random number of the training
        return loader

    def build_evaluator(self, evaluator: Any) -> Any:
        with redirect_stdout(io.StringIO()):  # silence pycocotools
            return super().build_evaluator(evaluator)


def build_runner(cfg: Config, loaders: Sequence[str]) -> DenseRunner:
    """Check the settings of a config and the data of its `loaders`, then build its Runner."""
    enter_scope(cfg)
    check_settings(cfg)
    check_pretrained(cfg)
    check_backends(cfg)
    check_bands(cfg, loaders)
    for name in loaders:
        check_data(cfg, name)
    cfg.setdefault('runner_type', 'mlp_dense.DenseRunner')
    return RUNNERS.build(cfg)


def config_text(cfg: Config) -> str:
    """Return the text of the config that :func:`build_runner` would run on this machine."""
    cfg = copy.deepcopy(cfg)
    cfg.setdefault('runner_type', 'mlp_dense.DenseRunner')
    adapt_to_machine(cfg)
    return cfg.pretty_text


def load_weights(model: torch.nn.Module, checkpoint: Checkpoint, strict: bool = True) -> None:
    """Load a checkpoint into a complete detector or segmentor.

    If not `strict`, heads may differ (mmengine logs how), but never the backbone.
    """
    warn_if_not_finite(checkpoint)
    try:
        with loading(checkpoint.source, inflates=not strict):
            load_state_dict(model, checkpoint.weights, strict=strict)
    except RuntimeError as error:
        raise CheckpointError(
            f'{checkpoint.source} is not a checkpoint of this model (same config, same number of classes?): '
            + textwrap.shorten(str(error), 400, placeholder=' ...')
        ) from error
