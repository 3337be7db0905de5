"""Outputs of the tools: those of others stay, and earlier ones until a test has succeeded."""

import json
import os
import shutil
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from mlp_dense import load_model
from support.configs import SEGMENTATION, thin_config
from support.tools import NO_WORKERS, call, own_globals


@pytest.fixture(scope='module')
def tested(shapes, tmp_path_factory):
    """Return a function that tests random weights of a small segmentor and returns the exit status."""
    folder = tmp_path_factory.mktemp('model')
    config, weights = thin_config('segmentation/hire_mlp_upernet_shapes', folder), folder / 'weights.pth'
    with own_globals():  # a logger of this module would write to its captured output
        torch.save(dict(state_dict=load_model(config, None, 'cpu').state_dict()), weights)

    def test(*arguments, checkpoint=weights, data=shapes) -> int:
        options = ['--data-root', data, *arguments, '--cfg-options', *NO_WORKERS, 'test_dataloader.dataset.indices=2']
        return call('test', config, checkpoint, *options)

    return test


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_failed_test_keeps_earlier_outputs(tested, tmp_path, capsys, one_process):
    report, drawn, run = tmp_path / 'report', tmp_path / 'drawn', tmp_path / 'run'
    arguments = ['--report', report, '--show-dir', drawn, '--work-dir', run]
    assert tested(*arguments) == 0
    assert len(list(drawn.glob('*.png'))) == 2 == len(json.loads((report / 'results' / 'images.json').read_text()))
    before = contents(report), contents(drawn), (run / 'metrics.json').read_bytes()
    assert tested(*arguments, checkpoint='typo.pth') == 2
    assert 'typo.pth does not exist' in capsys.readouterr().err
    full = [None, None, OSError(28, 'No space left on device')]
    with patch.object(Path, 'write_bytes', side_effect=full):
        assert tested(*arguments) == 2
    assert 'cannot be written (No space left on device)' in capsys.readouterr().err
    assert (contents(report), contents(drawn), (run / 'metrics.json').read_bytes()) == before
    assert tested(*arguments) == 0, 'a second test replaces the outputs'
    assert contents(report).keys() == before[0].keys() and contents(drawn) == before[1]


def test_outputs_of_others_stay(tested, shapes, tmp_path, capsys):
    mine = tmp_path / 'mine'
    for name in ('results/thesis.csv', 'pictures/holiday.jpg', 'metrics.json', 'out.pkl'):
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text('precious')
    before = contents(mine)
    run = ['--work-dir', tmp_path / 'run']
    for arguments, problem in (
        (['--report', mine, *run], 'choose a new or empty folder'),
        (['--show-dir', mine, *run], 'choose a new or empty folder'),
        (['--out', mine / 'out.pkl', *run], 'out.pkl exists and was not written by mlp_dense'),
        (['--work-dir', mine], 'metrics.json exists and was not written by mlp_dense; delete it or choose'),
        (['--report', tmp_path / 'run', *run], 'contains another output; choose separate folders'),
        (['--show-dir', tmp_path / 'x', '--report', tmp_path / 'x' / 'report', *run], 'contains another output'),
    ):
        assert tested(*arguments) == 2
        assert problem in capsys.readouterr().err
    assert contents(mine) == before


def test_images_of_others_stay(shapes, tmp_path, capsys):
    sheet, run = tmp_path / 'mine.png', tmp_path / 'vis_data'
    shutil.copy(shapes / 'labels' / 'val' / '000000.png', sheet)
    before = sheet.read_bytes()
    run.mkdir()
    (run / 'scalars.json').write_text('{"lr": 0.1, "loss": 1.0, "epoch": 1, "iter": 1, "step": 1}')
    for command in (['browse', SEGMENTATION, '--data-root', shapes, '--num', 1], ['plot_log', tmp_path]):
        assert call(*command, '--out', sheet) == 2
        assert 'mine.png exists and was not written by mlp_dense; delete it' in capsys.readouterr().err
        assert sheet.read_bytes() == before
        for _ in range(2):  # an own image is replaced
            assert call(*command, '--out', tmp_path / f'{command[0]}.png') == 0


def test_config_of_the_user_is_not_overwritten(shapes, tmp_path, monkeypatch):
    """The run writes its config into the work dir, which here is the folder of the user's config."""
    config = tmp_path / 'mine.py'
    text = f'_base_ = {SEGMENTATION!r}  # mine'
    config.write_text(text)
    quick = ['train_cfg.max_iters=1', 'train_cfg.val_interval=1', 'val_dataloader.dataset.indices=1', *NO_WORKERS]
    arguments = ['--data-root', shapes, '--work-dir', tmp_path, '--img-scale', 64, '--cfg-options', *quick]
    assert call('train', config, *arguments) == 0
    assert config.read_text() == text
    (copy,) = tmp_path.glob('*/mine.py')
    assert str(shapes) in copy.read_text()


def test_training_does_not_remove_checkpoints_of_others(shapes, tmp_path, capsys):
    (tmp_path / 'best_mIoU_iter_9.pth').write_text('precious')
    assert call('train', SEGMENTATION, '--data-root', shapes, '--work-dir', tmp_path) == 2
    assert 'contains a training run already (best_mIoU_iter_9.pth)' in capsys.readouterr().err


def test_report_of_images_whose_names_are_not_utf8(tested, shapes, tmp_path):
    data, name = tmp_path / 'shapes', os.fsdecode(b'0\xff')
    shutil.copytree(shapes, data)
    (data / 'val' / '000000.jpg').rename(data / 'val' / f'{name}.jpg')
    (data / 'labels' / 'val' / '000000.png').rename(data / 'labels' / 'val' / f'{name}.png')
    outputs = ['--report', tmp_path / 'report', '--show-dir', tmp_path / 'drawn', '--work-dir', tmp_path / 'run']
    assert tested(*outputs, data=data) == 0
    assert len(list((tmp_path / 'report' / 'pictures').iterdir())) == 2
    assert len(list((tmp_path / 'drawn').glob('*.png'))) == 2
