"""A run that continues or uses a checkpoint with other settings is told so."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mlp_dense.checkpoints.reading import Checkpoint
from mlp_dense.inference import load_model
from mlp_dense.training.trained_with import (
    VAL_SCALE,
    trained_with,
    warn_if_resumed_with_others,
    warn_if_used_with_others,
)
from support.configs import DETECTION, SEGMENTATION
from support.tools import call
from support.trainings import SHORT, write_config


@pytest.fixture(params=[DETECTION, SEGMENTATION], ids=['detection', 'segmentation'])
def trained(request, shapes, tmp_path, capsys):
    """Return the config and the checkpoint of a short training run on small images."""
    file = write_config(request.param, tmp_path, shapes, **SHORT[request.param])
    assert call('train', file, '--work-dir', tmp_path / 'run', '--img-scale', 64, 48, '--seed', 0) == 0
    printed = capsys.readouterr().out
    assert 'instead of' not in printed.partition('Training')[2]
    return file, Path((tmp_path / 'run' / 'last_checkpoint').read_text())


@pytest.mark.slow
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


@pytest.mark.slow
def test_other_class_names_are_named(trained, warned):
    file, checkpoint = trained
    cfg = Config.fromfile(file)
    classes = torch.load(checkpoint, weights_only=False)['meta']['dataset_meta']['classes']
    cfg.test_dataloader.dataset.metainfo = dict(classes=['other', *classes[1:]])
    load_model(cfg, checkpoint, 'cpu')
    assert any(f"has other classes than this config: '{classes[0]}' is 'other'; use" in line for line in warned)


@pytest.fixture
def warned(monkeypatch) -> list[str]:
    """Collect the warnings."""
    lines: list[str] = []
    monkeypatch.setattr('mlp_dense.training.trained_with.print_log', lambda text, **_: lines.append(text))
    return lines


@pytest.mark.parametrize(
    'meta',
    [
        dict(trained_with=[[1]], dataset_meta=dict(classes='balloon')),
        dict(trained_with={'size of validation images': '1x2\n\x1b[2J forged', 'epochs': [[]]}),
        dict(dataset_meta=dict(classes=torch.ones(2))),
        7,
    ],
)
def test_unusable_records_are_ignored(meta, warned):
    cfg = Config.fromfile(DETECTION)
    for function in (warn_if_used_with_others, warn_if_resumed_with_others):
        function(cfg, Checkpoint('x.pth', None, dict(meta=meta)))
    cfg.test_dataloader = None
    warn_if_used_with_others(cfg, Checkpoint('x.pth', None, {}))
    assert warned == []


def test_test_images_of_another_size_than_validation_images_are_intended(warned):
    cfg = Config.fromfile(DETECTION)
    resize = dict(type='Resize', scale=(64, 64))
    cfg.test_dataloader.dataset.pipeline.insert(1, resize)
    warn_if_used_with_others(cfg, Checkpoint('x.pth', None, dict(meta=dict(trained_with=trained_with(cfg)))))
    assert warned == []
    resize['scale'] = (32, 32)
    cfg.test_dataloader.dataset.pipeline[1] = resize
    warn_if_used_with_others(cfg, Checkpoint('x.pth', None, dict(meta=dict(trained_with={VAL_SCALE: '64x64'}))))
    assert len(warned) == 1 and 'pass --img-scale 64 64, or use' in warned[0]
