"""Small models, and the files that are exported from them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mlp_dense.export.check import read_check_images
from mlp_dense.export.exporting import spread_scores
from mlp_dense.inference import load_model
from support.configs import config, shallow, thin


@pytest.fixture(scope='session', autouse=True)
def installed():
    for package in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(package, reason=f"{package} of the extra 'export' is not installed")


@pytest.fixture(scope='session')
def tiny(tmp_path_factory) -> Callable[..., Path]:
    """Write a config of the repository with few layers and channels, of any family; return the file."""

    def tiny(name: str, family: str | None = None, stages: Sequence[int] = (0, 1), **changes) -> Path:
        cfg = Config.fromfile(config(name))
        thin(cfg)
        shallow(cfg, stages)
        if family == 'HireMLP':  # the second block of a stage has a step of its regions
            cfg.model.backbone.arch['depths'] = (2, 1, 1, 1)
        if family:
            cfg.model.backbone.type = f'mlp_dense.{family}'
            cfg.model.backbone.pop('norm_cfg', None)
        cfg.merge_from_dict(changes)
        file = tmp_path_factory.mktemp('config') / 'tiny.py'
        cfg.dump(file)
        return file

    return tiny


@pytest.fixture(scope='session')
def weights_of(tmp_path_factory, shapes) -> Callable[..., Path]:
    """Write a checkpoint with random weights that detect objects, and with random BatchNorm statistics."""

    def weights_of(file: Path, images: Path = shapes / 'val') -> Path:
        cfg = Config.fromfile(file)
        torch.manual_seed(0)
        model = load_model(cfg, None, 'cpu')
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
        spread_scores(model, read_check_images(cfg, images))
        path = tmp_path_factory.mktemp('weights') / 'weights.pth'
        torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=model.dataset_meta)), path)
        return path

    return weights_of
