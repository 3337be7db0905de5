"""A run that continues or uses a checkpoint with other settings is told so."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mlp_dense.inference import load_model
from support.configs import DETECTION, SEGMENTATION
from support.tools import call
from support.trainings import SHORT, write_config

pytestmark = pytest.mark.slow


@pytest.fixture(params=[DETECTION, SEGMENTATION], ids=['detection', 'segmentation'])
def trained(request, shapes, tmp_path, capsys):
    """Return the config and the checkpoint of a short training run on small images."""
    file = write_config(request.param, tmp_path, shapes, **SHORT[request.param])
    assert call('train', file, '--work-dir', tmp_path / 'run', '--img-scale', 64, 48, '--seed', 0) == 0
    printed = capsys.readouterr().out
    assert 'instead of' not in printed.partition('Training')[2]
    return file, Path((tmp_path / 'run' / 'last_checkpoint').read_text())


def test_settings_that_differ_are_named(trained, tmp_path, capsys):
    file, checkpoint = trained
    length = ['--epochs', 2] if 'max_epochs' in Config.fromfile(file).train_cfg else ['--iters', 8]
    options = ['--batch-size', 2, *length]
    assert call('train', file, '--work-dir', tmp_path / 'run', '--resume', *options) == 0
    printed = capsys.readouterr().out
    assert printed.count('Resumed with other settings than the interrupted run: ') == 1
    assert f' {length[1]} instead of {length[1] // 2}, ' in printed and 'batch size' not in printed
    assert 'size of training images original size instead of 64x48' in printed

    small = ['--img-scale', 64, 48]
    for more, expected in ((small, 0), ([], 1)):
        assert call('test', file, checkpoint, '--work-dir', tmp_path / 'test', *more) == 0
        assert capsys.readouterr().out.count('was validated on images of 64x48') == expected


def test_other_class_names_are_named(trained, log_lines):
    file, checkpoint = trained
    cfg = Config.fromfile(file)
    classes = torch.load(checkpoint, weights_only=False)['meta']['dataset_meta']['classes']
    cfg.test_dataloader.dataset.metainfo = dict(classes=['other', *classes[1:]])
    load_model(cfg, checkpoint, 'cpu')
    assert any(f"has other classes than this config: '{classes[0]}' is 'other'; use" in line for line in log_lines)
