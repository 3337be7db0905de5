"""Fixtures for the tests of classifiers, which need timm."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mlp_dense.datasets.shapes import write_shapes
from support.configs import config
from support.models import SMALL

SHAPES = config('classification/hire_mlp_shapes')


@pytest.fixture(scope='session')
def classes(tmp_path_factory) -> Path:
    """Write a small copy of the generated data for classification."""
    root = tmp_path_factory.mktemp('data') / 'shapes_classes'
    write_shapes(root, num_train=20, num_val=10, size=32, classify=True)
    return root


@pytest.fixture
def quick(classes, tmp_path):
    """Return a function that writes a quick config with all sources of randomness and returns the file."""

    def write(**changes) -> Path:
        cfg = Config.fromfile(SHAPES)
        cfg.model.backbone.update(arch=SMALL, drop_path_rate=0.3)
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            loader.dataset.data_root, loader.batch_size = str(classes), 4
        cfg.train_dataloader.dataset.pipeline[1].update(auto_augment='rand-m9-mstd0.5-inc1', input_size=32)
        cfg.test_dataloader.dataset.pipeline[1].input_size = 32
        cfg.merge_from_dict({'train_cfg.max_epochs': 2, 'train_cfg.val_interval': 1, 'param_scheduler.length': 2})
        cfg.merge_from_dict({'param_scheduler.warmup': 1, 'default_hooks.logger.interval': 1})
        cfg.merge_from_dict({'default_hooks.checkpoint.interval': 1})
        cfg.merge_from_dict(changes)
        file = tmp_path / 'quick.py'
        cfg.dump(file)
        return file

    return write
