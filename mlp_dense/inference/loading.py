"""Trained models in Python: load a model, predict on images, and draw the results."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from .. import operators
from ..checkpoints.reading import Checkpoint
from ..checks.channels import check_channels
from ..checks.data_config import check_class_count
from ..config.config_file import enter_scope, need, read_config
from ..config.validation import building
from ..datasets.layout import dataset_meta
from ..errors import CheckpointError, UserError
from ..tasks import task_of
from ..training.machine import adapt_to_cpu
from ..training.runner import load_weights
from ..training.setup import is_exported, run_exported
from ..visualization.drawing import colours, draw_labels
from .prediction import Frame, predict, read_image, write_image


class LoadedModel:
    """Methods that :func:`load_model` adds to the class of a model."""

    cfg: Config
    dataset_meta: dict[str, Any]

    def predict(self, images: Any, *args: Any, batch_size: int = 1, **kwargs: Any) -> Any:
        """Predict on an image or a list of images, prepared by the test pipeline of the config.

        Args:
            images: path, RGB array (H, W, 3) of uint8, or a list of these.
            *args: reserved, like `kwargs`, for mmdet and mmsegmentation, which call their method of this name.
            batch_size: maximum number of images in a batch; only consecutive images of one size share a batch.
            **kwargs: reserved.

        Returns:
            A data sample for an image, a list of data samples for a list. Each has ``pred_instances`` (mmdet),
            ``pred_sem_seg`` (mmsegmentation) or ``pred_class`` (classifiers), in pixels of the image.

        Raises:
            UserError: an image is missing, cannot be decoded, or has another shape or dtype.
        """
        if args or kwargs:
            return super().predict(images, *args, **kwargs)  # type: ignore[misc]
        if batch_size < 1:
            raise UserError(f'batch_size is {batch_size}; set it to 1 or more.')
        is_list, flag = isinstance(images, (list, tuple)), task_of(self.cfg.default_scope).flag
        decoded = (read_image(image, flag) for image in (images if is_list else [images]))
        frames = (Frame(dict(id=i), str(i), image) for i, image in enumerate(decoded))
        samples = [sample for _, sample in predict(self, frames, batch_size)]
        return samples if is_list else samples[0]

    def draw(
        self, image: str | Path | np.ndarray, result: Any, out: str | Path | None = None, score_thr: float = 0.3
    ) -> np.ndarray:
        """Draw the `result` of :meth:`predict` on its `image`: a path, or an RGB array (H, W, 3) of uint8.

        Objects with a score below `score_thr` are not drawn. `out` is a file to write, in a new or existing folder.

        Returns:
            RGB array (H, W, 3) of uint8. Small images are enlarged by an integer factor, so that names are legible.

        Raises:
            UserError: the image is unusable or does not belong to the result, or the file cannot be written.
        """
        task = task_of(self.cfg.default_scope)
        bgr = read_image(image, task.flag)
        size, expected = ('{}x{}'.format(*shape) for shape in (bgr.shape, result.get('ori_shape', bgr.shape)))
        if size != expected:
            raise UserError(
                f'The result is of an image of {expected} pixels, this image has {size}; '
                'pass the image that the result was predicted for.'
            )
        labels = task.labels_of(result, 'pred', score_thr)
        if labels is None:
            raise UserError(f'The result has no pred_{task.field}; pass a data sample that predict() returned.')
        drawn = draw_labels(bgr, [labels], task.draw, self.dataset_meta, bgr=True)
        if out is not None:
            write_image(Path(out), drawn)
        return np.ascontiguousarray(drawn[..., ::-1])

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the model by its original class; the combined class is not in a module."""
        return _new_model, (type(self).__bases__[1],), self.__dict__


@cache
def _with_methods(cls: Any) -> Any:
    return type(cls.__name__, (LoadedModel, cls), dict(__module__=cls.__module__, __doc__=cls.__doc__))


def _new_model(cls: Any) -> Any:
    combined = _with_methods(cls)
    return combined.__new__(combined)


def load_model(
    config: str | Path | Config, checkpoint: str | Path | None, device: str | torch.device | None = None
) -> Any:
    """Build a model and load its weights.

    Args:
        config: config file, or a config, which is not changed; its ``init_cfg`` is ignored.
        checkpoint: file or URL of a checkpoint; a file of tools/export.py, which runs on the CPU; None: random weights.
        device: None uses the first GPU, else the CPU. On a CPU, BatchNorm replaces SyncBN.

    Returns:
        The model of mmdet, mmsegmentation or this package in eval mode, with the methods of :class:`LoadedModel`,
        ``cfg`` and ``dataset_meta``: ``classes``, from the checkpoint or else the test data of the config, and
        ``palette``, an (R, G, B) colour from 0 to 255 for each class.

    Raises:
        UserError: the config or the device is unusable, or the class names are unknown or do not fit the model.
        CheckpointError: the checkpoint is unusable or belongs to another model.
    """
    device = checked_device(device)
    cfg = copy.deepcopy(config) if isinstance(config, Config) else read_config(config)
    need(cfg, 'model')
    if device.type == 'cpu':
        adapt_to_cpu(cfg)
    enter_scope(cfg)
    if checkpoint is not None and is_exported(checkpoint):
        device, model_cfg = torch.device('cpu'), cfg.model
        run_exported(cfg, checkpoint)
        model = _build(cfg)
        cfg.model, meta = model_cfg, model.exported.dataset_meta
    else:
        stored = None if checkpoint is None else Checkpoint.read(checkpoint)
        meta = _dataset_meta(cfg, stored.dataset_meta if stored else {})
        model = _build(cfg)
        check_channels(model)
        if stored:
            load_weights(model, stored)
        operators.announce()
    model.__class__ = _with_methods(type(model))  # type: ignore[arg-type]
    model.cfg, model.dataset_meta = cfg, meta
    return model.to(device).eval()


def _build(cfg: Config) -> Any:
    with building(cfg):
        return MODELS.build(cfg.model)


def checked_device(device: str | torch.device | None) -> torch.device:
    """Return the device of a name, for None the first GPU or else the CPU; raise UserError if it is absent."""
    try:
        device = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise UserError(f'The device {device} is unknown or absent; use cpu, cuda or cuda:NUMBER.') from error
    return device


def _dataset_meta(cfg: Config, stored: dict[str, Any]) -> dict[str, Any]:
    configured = dataset_meta(cfg.test_dataloader.dataset) if 'test_dataloader' in cfg else {}
    configured_classes = tuple(configured.get('classes') or ())
    classes = stored.get('classes') or configured_classes
    if not classes:
        raise UserError(
            'Neither the checkpoint nor the test data of the config contain class names; '
            'set metainfo=dict(classes=...) in test_dataloader.dataset.'
        )
    check_class_count(cfg.model, classes, 'the meta data of the checkpoint' if 'classes' in stored else 'the test data')
    palette = stored.get('palette') or (configured.get('palette') if classes == configured_classes else None)
    return dict(classes=classes, palette=colours(palette, len(classes)))


def compare_with_model(cfg: Config, checkpoint: Checkpoint) -> str:
    """Return whether a checkpoint loads into the complete model of a config, or why it does not."""
    enter_scope(cfg)
    model = _build(cfg)
    try:
        load_weights(model, checkpoint)
    except CheckpointError as error:
        return f'does not load: {error}'
    return f'loads: {len(model.state_dict())} tensors'
