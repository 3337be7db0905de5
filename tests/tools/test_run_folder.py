"""Records in the folder of a training that are needed to reproduce it."""

import json
import shutil
import subprocess

import mmengine
import pytest
import torch

from mlp_dense.training.run_info import git_state
from support.configs import DETECTION, SEGMENTATION, thin_config
from support.tools import call

QUICK = {
    DETECTION: ['train_cfg.max_epochs=1', 'param_scheduler.1.end=2'],
    SEGMENTATION: ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=1'],
}


@pytest.mark.slow
@pytest.mark.parametrize('config', [DETECTION, SEGMENTATION], ids=['detection', 'segmentation'])
def test_run_json_records_command_seed_and_versions(shapes, tmp_path, capsys, config):
    name = f'{"detection" if config == DETECTION else "segmentation"}/{config.rpartition("/")[2][:-3]}'
    start = [thin_config(name, tmp_path), '--data-root', shapes, '--work-dir', tmp_path / 'run', '--seed', 3]
    options = ['--cfg-options', *QUICK[config]]
    assert call('train', *start, *options) == 0
    (file,) = (tmp_path / 'run').glob('*/run.json')
    record = json.loads(file.read_text())
    assert record['seed'] == 3 and record['processes'] == 1
    assert str(tmp_path / 'run') in record['command'] and QUICK[config][0] in record['command']
    assert record['versions']['mmengine'] == mmengine.__version__
    assert record['environment']['PyTorch'] == torch.__version__
    assert record['config']['train_dataloader']['dataset']['data_root'] == f'{shapes}/'

    checkpoints = [*(tmp_path / 'run').glob('*.pth')]
    assert len(checkpoints) >= 2
    for path in checkpoints:
        assert torch.load(path, weights_only=False)['meta']['run_id'] == record['run_id']
    capsys.readouterr()
    assert call('checkpoint', 'inspect', checkpoints[0]) == 0
    assert f'run         {record["run_id"]}' in capsys.readouterr().out

    more = ['train_cfg.max_epochs=2'] if config == DETECTION else ['train_cfg.max_iters=3']
    assert call('train', *start, '--resume', *options, *more) == 0
    resumed = json.loads(max((tmp_path / 'run').glob('*/run.json')).read_text())
    assert resumed['run_id'] != record['run_id']


def test_git_state_contains_the_revision(tmp_path):
    if not shutil.which('git'):
        pytest.skip('git is absent')

    def git(*command: str) -> None:
        subprocess.run(['git', '-c', 'user.name=a', '-c', 'user.email=a', *command], cwd=tmp_path, check=True)

    file = tmp_path / 'file.py'
    file.write_text('1')
    assert git_state(file) is None
    git('init', '--quiet')
    assert git_state(file) is None, 'the file is not committed'
    git('add', 'file.py')
    git('commit', '--quiet', '-m', 'one')
    assert git_state(file)['clean'] is True and len(git_state(file)['revision']) == 40
    file.write_text('2')
    assert git_state(file)['clean'] is False
