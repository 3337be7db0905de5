"""mmengine's Runner, made safe and loud."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import cv2
import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import BaseLoop, Runner
from mmengine.runner.checkpoint import load_state_dict

from ..checkpoints.reading import Checkpoint
from ..errors import CheckpointError, UserError
from .configs import adapt_to_cpu
from .data import check_data
from .launch import start_processes


class DenseRunner(Runner):
    """mmengine's Runner, with checkpoints read safely and loudly, and unreadable pictures reported by name."""

    def load_checkpoint(self, filename: str, map_location: Any = 'cpu', strict: bool = False, **_: Any) -> dict:
        """Testing and resuming need every tensor of the model; a training that starts from `load_from` may differ in
        its heads (mmengine logs how), but never in the backbone.

        Raises:
            CheckpointError: the file is unusable, or does not fit.
        """
        checkpoint = Checkpoint.read(filename, map_location)
        if self._resume and not {'meta', 'optimizer', 'message_hub'} <= checkpoint.content.keys():
            raise CheckpointError(
                f'{filename} holds weights but no state of a training, so nothing can be resumed from it; '
                'start a new training from it with --cfg-options load_from=FILE.'
            )
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint.content)
        model = self.model.module if is_model_wrapper(self.model) else self.model
        fine_tuning = isinstance(self._train_loop, BaseLoop) and not self._resume  # built only when training
        load_weights(model, checkpoint, strict=strict or not fine_tuning)
        self._has_loaded = True
        self.logger.info(f'Loaded checkpoint {filename}')
        return checkpoint.content

    @staticmethod
    def build_dataloader(dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            loader = Runner.build_dataloader(dataloader, *args, **kwargs)
        except ValueError as error:
            if 'need at least one array' not in str(error):  # what mmengine's data sets say when they are empty
                raise
            wanted = {key: dataloader['dataset'].get(key) for key in ('data_root', 'data_prefix', 'img_suffix')}
            described = ', '.join(f'{key}={value}' for key, value in wanted.items() if value)
            raise UserError(f'There is no picture where the config looks ({described}); correct it.') from error
        dataset = loader.dataset
        while hasattr(dataset, 'dataset'):  # wrappers, such as RepeatDataset
            dataset = dataset.dataset
        classes, found = dataset.metainfo.get('classes', ()), getattr(dataset, 'cat_ids', None)
        if found is not None and len(found) != len(classes):
            raise UserError(
                f'{dataset.ann_file} names {len(found)} of the {len(classes)} classes of the data set '
                f'({", ".join(classes[:5])}, ...); set metainfo=dict(classes=...) to the names in the file.'
            )
        for i, transform in enumerate(dataset.pipeline.transforms):
            if type(transform).__name__.startswith('Load'):
                dataset.pipeline.transforms[i] = _Reading(transform)
        return loader


class _Reading:
    """Runs a loading transform; what cannot be read becomes an error that names the file."""

    def __init__(self, transform: Any):
        self.transform = transform

    def __call__(self, results: dict) -> dict:
        try:
            return self.transform(results)
        except UserError:
            raise
        except Exception as error:  # whatever the decoders of OpenCV and Pillow raise
            files = [results[key] for key in ('img_path', 'seg_map_path') if results.get(key)]
            bad = [file for file in files if not _decodes(file)]
            if not bad:
                raise
            raise UserError(
                f'{bad[0]} is missing or no readable picture; replace it, or remove it from the data.'
            ) from error


def _decodes(file: str) -> bool:
    return cv2.imread(str(file), cv2.IMREAD_UNCHANGED) is not None


@contextmanager
def explain_unknown_types() -> Iterator[None]:
    """Around the building of what a config describes: an unknown type becomes a UserError."""
    try:
        yield
    except KeyError as error:
        if 'registry' in str(error):  # an unknown type
            raise UserError(
                f'{str(error.args[0]).split(" Please check")[0]} Is the name in the config right?'
            ) from error
        raise


def build_runner(cfg: Config, loaders: Sequence[str]) -> DenseRunner:
    """Checks the data behind the given loaders (``train``, ``val``, ``test``), adapts the config to this machine and
    builds the Runner.

    Raises:
        UserError: data are missing, class counts differ, or a model setting is unknown.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    for name in loaders:
        check_data(cfg, name)
    if not torch.cuda.is_available():
        adapt_to_cpu(cfg)
    if cfg.launcher != 'none':
        start_processes(cfg)
    if find_spec('tensorboard') and 'visualizer' in cfg:
        cfg.visualizer.vis_backends = [*cfg.visualizer.get('vis_backends', []), dict(type='TensorboardVisBackend')]
    with explain_unknown_types():
        return DenseRunner.from_cfg(cfg)


def warn_of_random_backbone(cfg: Config) -> None:
    """Published results start from ImageNet weights; a training for days without them should be on purpose."""
    if is_main_process() and not (cfg.model.backbone.get('init_cfg') or cfg.get('load_from') or cfg.get('resume')):
        print_log(
            'The backbone starts from random weights. Published recipes start from ImageNet weights: --cfg-options '
            'model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=FILE_OR_URL',
            logger='current',
            level=logging.WARNING,
        )


def load_weights(model: torch.nn.Module, checkpoint: Checkpoint, strict: bool = True) -> None:
    """Loads a checkpoint into a whole detector or segmentor.

    Args:
        strict: every tensor of the model must be there, and no other. If not, heads may differ (mmengine logs how),
            but never the backbone.

    Raises:
        CheckpointError: it does not fit.
    """
    try:
        load_state_dict(model, checkpoint.weights, strict=strict)
    except RuntimeError as error:
        reason = ' '.join(str(error).split())
        raise CheckpointError(
            f'{checkpoint.source} is not a checkpoint of this model (same config, same number of classes?): '
            f'{reason[:400]}{" ..." if len(reason) > 400 else ""}'
        ) from error
