"""Trained models in Python: two lines to a detector or segmentor that predicts."""

import copy
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from .. import operators
from ..backbones.base import MLPBackbone
from ..checkpoints.matching import match_to_backbone, summary
from ..checkpoints.reading import Checkpoint, split_backbone
from ..checks.channels import check_channels
from ..checks.data_config import check_class_count, dataset_meta
from ..config.reading import adapt_to_cpu, enter_scope, read_config
from ..config.validation import building
from ..errors import CheckpointError, UserError
from ..training.runner import load_weights
from ..training.setup import is_exported, run_exported
from ..visualization.drawing import colours


def load_model(
    config: str | Path | Config, checkpoint: str | Path | None, device: str | torch.device | None = None
) -> nn.Module:
    """Builds a detector or segmentor and loads its weights: for ``mmdet.apis.inference_detector`` or
    ``mmseg.apis.inference_model``.

    Args:
        config: a config file or a config, which stays as it is.
        checkpoint: a file or an address, see :func:`~mlp_dense.checkpoints.reading.read_checkpoint`, or a file that
            tools/export.py wrote, which runs on the CPU; None leaves random weights. An ``init_cfg`` of the config is
            never read.
        device: where the model goes; None is the first GPU if there is one, else the CPU, where SyncBN becomes BN.

    Returns:
        The model in eval mode, with ``cfg`` (what it was built from) and ``dataset_meta``: ``classes``, the names that
        the checkpoint or else the test data of the config give, and ``palette``, (R, G, B) from 0 to 255 for each.

    Raises:
        UserError: the config or the device is unusable, or the class names are unknown or not as many as in the model.
        CheckpointError: the file is unusable, or is not of this model.
    """
    device = checked_device(device)
    cfg = copy.deepcopy(config) if isinstance(config, Config) else read_config(config)
    if 'model' not in cfg:
        raise UserError(f'{cfg.filename or "The config"} has no model; give a config of a detector or segmentor.')
    if device.type == 'cpu':
        adapt_to_cpu(cfg)
    enter_scope(cfg)
    if is_exported(checkpoint):
        return _load_exported(cfg, checkpoint)
    stored = None if checkpoint is None else Checkpoint.read(checkpoint)
    meta = _dataset_meta(cfg, stored.dataset_meta if stored else {})
    with building(cfg):
        model = MODELS.build(cfg.model)
    check_channels(model)
    if stored:
        load_weights(model, stored)
    model.cfg, model.dataset_meta = cfg, meta
    operators.announce()
    return model.to(device).eval()


def _load_exported(cfg: Config, file: str | Path) -> nn.Module:
    """The model of an exported file, with the same attributes."""
    original = cfg.model
    run_exported(cfg, file)
    with building(cfg):
        model = MODELS.build(cfg.model)
    cfg.model = original
    model.cfg, model.dataset_meta = cfg, model.exported.dataset_meta
    return model.eval()


def checked_device(device: str | torch.device | None) -> torch.device:
    """The device of a name; None is the first GPU if there is one, else the CPU. UserError: it is unknown or absent."""
    try:
        device = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise UserError(f'The device {device} is unknown or absent; give cpu, cuda or cuda:NUMBER.') from error
    return device


def _dataset_meta(cfg: Config, stored: dict[str, Any]) -> dict[str, Any]:
    own = dataset_meta(cfg.test_dataloader.dataset) if 'test_dataloader' in cfg else {}
    classes = stored.get('classes') or tuple(own.get('classes') or ())
    if not classes:
        reason = 'Neither the checkpoint nor the test data of the config name the classes'
        raise UserError(f'{reason}; add metainfo=dict(classes=...) to test_dataloader.dataset.')
    check_class_count(cfg.model, classes, 'the meta data of the checkpoint' if 'classes' in stored else 'the test data')
    palette = stored.get('palette') or (own.get('palette') if classes == tuple(own.get('classes') or ()) else None)
    return dict(classes=classes, palette=colours(palette, len(classes))[: len(classes)])


def compare_with_model(cfg: Config, checkpoint: Checkpoint) -> str:
    """What loads into the whole model of a config, and what does not."""
    enter_scope(cfg)
    with torch.device('meta'), building(cfg):
        model = MODELS.build(cfg.model)
    own, found, problems, fitted = model.state_dict(), checkpoint.weights, [], 0
    total = len(own)
    inner, others = split_backbone(found)
    if hasattr(classifier := getattr(model, 'backbone', None), 'matched'):
        own, found = classifier.state_dict(), {}
        try:
            found = classifier.matched(checkpoint, classifier.in_chans)[0]
        except CheckpointError as error:
            problems.append(str(error).rstrip('.'))
    elif inner and isinstance(backbone := getattr(model, 'backbone', None), MLPBackbone):
        own, found = split_backbone(own)[1], others
        try:
            fitted = len(match_to_backbone(backbone, checkpoint)[0])
        except CheckpointError as error:
            problems.append(str(error).rstrip('.'))
    wrong_shape = [key for key in own if key in found and found[key].shape != own[key].shape]
    problems += summary(
        {
            'missing': [key for key in own if key not in found],
            'unexpected': [key for key in found if key not in own],
            'of another shape': [f'{key} {tuple(found[key].shape)} for {tuple(own[key].shape)}' for key in wrong_shape],
        }
    )
    fitted += len(own.keys() & found.keys()) - len(wrong_shape)
    return '; '.join([f'{"does not load" if problems else "loads"}: {fitted} of its {total} tensors fit', *problems])
