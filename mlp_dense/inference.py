"""Trained models in Python: two lines to a detector or segmentor that predicts."""

import copy
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from .checkpoint import dataset_meta_of, read_checkpoint
from .errors import UserError


def load_model(
    config: str | Path | Config, checkpoint: str | Path | None, device: str | torch.device | None = None
) -> nn.Module:
    """Builds a detector or segmentor and loads its weights: for ``mmdet.apis.inference_detector`` or
    ``mmseg.apis.inference_model``.

    Args:
        config: a config file or a config, which stays as it is.
        checkpoint: a file or an address, see :func:`~mlp_dense.checkpoint.read_checkpoint`; None leaves random
            weights. An ``init_cfg`` of the config is never read.
        device: where the model goes; None is the first GPU if there is one, else the CPU, where SyncBN becomes BN.

    Returns:
        The model in eval mode, with ``cfg`` (what it was built from) and ``dataset_meta``: ``classes``, the names that
        the checkpoint or else the test data of the config give, and ``palette``, (R, G, B) from 0 to 255 for each.

    Raises:
        UserError: the config or the device is unusable, or the class names are unknown or not as many as in the model.
        CheckpointError: the file is unusable, or is not of this model.
    """
    from .loading import load_weights
    from .runner import (
        adapt_to_cpu,
        explain_unknown_types,
        read_config_file,
    )  # they need OpenCV, which the backbones alone do not

    device = _checked_device(device)
    cfg = copy.deepcopy(config) if isinstance(config, Config) else read_config_file(config)
    if 'model' not in cfg:
        raise UserError(f'{cfg.filename or "The config"} has no model; give a config of a detector or segmentor.')
    if device.type == 'cpu':
        adapt_to_cpu(cfg)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    content = {} if checkpoint is None else read_checkpoint(checkpoint)
    meta = _dataset_meta(cfg, {} if checkpoint is None else dataset_meta_of(content, checkpoint))
    with explain_unknown_types():
        model = MODELS.build(cfg.model)
    if checkpoint is not None:
        load_weights(model, content, checkpoint)
    model.cfg, model.dataset_meta = cfg, meta
    return model.to(device).eval()


def _checked_device(device: str | torch.device | None) -> torch.device:
    try:
        device = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise UserError(f'The device {device} is unknown or absent; give cpu, cuda or cuda:NUMBER.') from error
    return device


def _dataset_meta(cfg: Config, stored: dict[str, Any]) -> dict[str, Any]:
    from .drawing import colours
    from .runner import check_class_count, dataset_meta

    own = dataset_meta(cfg.test_dataloader.dataset) if 'test_dataloader' in cfg else {}
    classes = stored.get('classes') or tuple(own.get('classes') or ())
    if not classes:
        raise UserError(
            'Neither the checkpoint nor the test data of the config name the classes; add metainfo=dict(classes=...) '
            'to test_dataloader.dataset.'
        )
    check_class_count(cfg.model, classes, 'the meta data of the checkpoint' if 'classes' in stored else 'the test data')
    palette = stored.get('palette') or (own.get('palette') if classes == tuple(own.get('classes') or ()) else None)
    return dict(classes=classes, palette=colours(palette, len(classes))[: len(classes)])
