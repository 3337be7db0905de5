"""Records in the folder of a training run that are needed to reproduce it."""

import json
from importlib.metadata import version
from pathlib import Path

import mmengine
import pytest
import torch
from mmengine.utils import get_git_hash

from support.configs import thin_config
from support.tools import call


@pytest.mark.slow
def test_run_json_records_command_seed_and_versions(shapes, tmp_path, capsys):
    file = thin_config('segmentation/hire_mlp_upernet_shapes', tmp_path)
    start = [file, '--data-root', shapes, '--work-dir', tmp_path / 'run', '--seed', 3]
    quick = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=1']
    options = ['--cfg-options', *quick]
    assert call('train', *start, *options) == 0
    (file,) = (tmp_path / 'run').glob('*/run.json')
    record = json.loads(file.read_text())
    assert record['seed'] == 3 and record['processes'] == 1 and record['git'] == get_git_hash()
    assert str(tmp_path / 'run') in record['command'] and quick[0] in record['command']
    assert record['versions']['mmengine'] == mmengine.__version__
    assert record['versions']['torch'] == version('torch')
    assert record['config']['train_dataloader']['dataset']['data_root'] == f'{shapes}/'

    checkpoints = [*(tmp_path / 'run').glob('*.pth')]
    assert len(checkpoints) >= 2
    for path in checkpoints:
        assert torch.load(path, weights_only=False)['meta']['run_id'] == record['run_id']
    capsys.readouterr()
    assert call('checkpoint', 'inspect', checkpoints[0]) == 0
    assert f'{"run":<15}{record["run_id"]}' in capsys.readouterr().out

    assert call('train', *start, '--resume', *options, 'train_cfg.max_iters=3') == 0
    resumed = json.loads(max((tmp_path / 'run').glob('*/run.json')).read_text())
    assert resumed['run_id'] != record['run_id']


def test_tests_keep_the_config_of_the_training_run(shapes, tmp_path):
    """Its file belongs to the checkpoints; a test with other options writes its config next to its log."""
    file, run = Path(thin_config('segmentation/hire_mlp_upernet_shapes', tmp_path)), tmp_path / 'run'
    quick = ['train_cfg.max_iters=1', 'train_cfg.val_interval=1', 'default_hooks.checkpoint.interval=1']
    where = ['--data-root', shapes, '--work-dir', run]
    assert call('train', file, *where, '--cfg-options', *quick) == 0
    before = (run / file.name).read_bytes()
    assert call('test', file, run / 'iter_1.pth', *where, '--img-scale', 96) == 0
    assert (run / file.name).read_bytes() == before
    assert [path for path in run.glob(f'*/{file.name}') if path.read_bytes() != before]
