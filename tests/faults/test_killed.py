"""Training runs that are killed at random moments and while a checkpoint is written, and resumed."""

import os
import random
import resource
import signal
import time
from pathlib import Path
from unittest.mock import patch

import pytest

from support.configs import ROOT, SEGMENTATION
from support.tools import call, run
from support.trainings import assert_equal_states, records_of, start, two_processes, wait, write_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('on_cpu')]

CHANGES = {
    'train_cfg.max_iters': 8,
    'train_cfg.val_interval': 4,
    'default_hooks.checkpoint.interval': 2,
    'default_hooks.checkpoint.max_keep_ckpts': 2,
}
FINAL = 'iter_8.pth'


@pytest.fixture(scope='module')
def uninterrupted(shapes, tmp_path_factory):
    """Return config, work dir and seconds of an uninterrupted run."""
    folder = tmp_path_factory.mktemp('uninterrupted')
    file = write_config(SEGMENTATION, folder, shapes, **CHANGES)
    begin = time.monotonic()
    assert wait(start(file, '--work-dir', folder, '--seed', 7, log=folder / 'log')) == 0, (folder / 'log').read_text()
    return file, folder, time.monotonic() - begin


def kill_in_write(number: int):
    """Make a process kill itself at its `number`-th flush of a file."""
    calls = iter(range(number, 0, -1))
    fsync = os.fsync

    def killing(file: int) -> None:
        if next(calls, 0) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(file)

    patch('os.fsync', killing).start()


def finish(file: Path, work_dir: Path, uninterrupted: Path) -> None:
    """Resume as a user does, and compare the result with the uninterrupted run."""
    pid = start(file, '--work-dir', work_dir, '--seed', 7, '--resume', log=work_dir / 'log')
    assert wait(pid) == 0, (work_dir / 'log').read_text()
    assert_equal_states(work_dir / FINAL, uninterrupted / FINAL)
    assert records_of(work_dir) == records_of(uninterrupted)
    assert {path.name for path in work_dir.glob('*.pth')} == {path.name for path in uninterrupted.glob('*.pth')}
    assert not list(work_dir.glob('.*.unfinished')), 'no unfinished file stays'


@pytest.mark.parametrize('trial', range(2))
def test_training_killed_at_a_random_moment_resumes_bit_for_bit(uninterrupted, tmp_path, trial):
    file, folder, seconds = uninterrupted
    work_dir = tmp_path / 'run'
    pid = start(file, '--work-dir', work_dir, '--seed', 7, log=tmp_path / 'log')
    time.sleep(seconds * random.Random(trial).uniform(0.2, 1.0))
    os.kill(pid, signal.SIGKILL)
    assert wait(pid) in (0, -signal.SIGKILL), (tmp_path / 'log').read_text()
    work_dir.mkdir(exist_ok=True)
    finish(file, work_dir, folder)


@pytest.mark.parametrize('write', [1, 6, 11, 16])
def test_training_killed_inside_a_write_resumes_bit_for_bit(uninterrupted, tmp_path, write):
    """A checkpoint needs four flushes, of which each is interrupted once: its file and folder, and its pointer's."""
    file, folder, _ = uninterrupted
    work_dir = tmp_path / 'run'
    pid = start(file, '--work-dir', work_dir, '--seed', 7, log=tmp_path / 'log', prepare=lambda: kill_in_write(write))
    assert wait(pid) == -signal.SIGKILL, (tmp_path / 'log').read_text()
    finish(file, work_dir, folder)


def test_full_disk_keeps_older_checkpoints(uninterrupted, tmp_path):
    """A limit on file sizes simulates a full disk: the training ends with an explained error, nothing is lost."""
    file, *_ = uninterrupted
    work_dir = tmp_path / 'run'
    short = ['--cfg-options', 'train_cfg.max_iters=4']
    assert call('train', file, '--work-dir', work_dir, '--seed', 7, *short) == 0
    before = {path.name: path.read_bytes() for path in work_dir.glob('*.pth')}
    limit = (work_dir / 'iter_4.pth').stat().st_size // 2

    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    pid = start(file, '--work-dir', work_dir, '--resume', log=tmp_path / 'log', prepare=prepare)
    assert wait(pid) == 2
    assert 'iter_6.pth cannot be written (File too large)' in (tmp_path / 'log').read_text()
    assert {path.name: path.read_bytes() for path in work_dir.glob('*.pth')} == before
    assert not list(work_dir.glob('.*.unfinished'))


def test_killed_process_ends_the_others_and_both_resume(shapes, tmp_path):
    """The surviving process ends with an explanation; resumed, both reach the result of an uninterrupted run."""
    file = write_config(SEGMENTATION, tmp_path, shapes, **CHANGES)
    killing = tmp_path / 'killing.py'
    hook = dict(type='SignalHook', at=7, signals=['SIGKILL'], rank=1)
    killing.write_text(f"_base_ = './{file.name}'\ncustom_hooks = [{hook}]\n")

    def train(config: Path, name: str, *more: str) -> list[int]:
        arguments = [config, '--work-dir', tmp_path / name, '--seed', 7, '--launcher', 'pytorch', *more]
        pids = [start(*arguments, log=tmp_path / f'{name}{e["RANK"]}', **e) for e in two_processes()]
        return [wait(pid) for pid in pids]

    def log(name: str) -> str:
        return (tmp_path / name).read_text()

    assert train(file, 'uninterrupted') == [0, 0], log('uninterrupted0') + log('uninterrupted1')
    assert train(killing, 'killed') == [2, -signal.SIGKILL], log('killed0')
    assert 'Another process of this training run has died' in log('killed0')
    assert train(file, 'killed', '--resume') == [0, 0], log('killed0') + log('killed1')
    assert_equal_states(tmp_path / 'killed' / FINAL, tmp_path / 'uninterrupted' / FINAL)
    # torchrun restarts both processes by itself.
    with killing.open('a') as config:
        config.write("custom_imports = dict(imports=['support.trainings'])\n")
    torchrun = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', '--max-restarts=1']
    path = f'{ROOT}{os.pathsep}{ROOT / "tests"}'
    # https://github.com/pytorch/pytorch/issues/135712: restarted processes must not reuse old addresses
    with patch.dict(os.environ, PYTHONPATH=path, TORCH_DISABLE_SHARE_RDZV_TCP_STORE='1'):
        where = ['--work-dir', tmp_path / 'again', '--seed', 7, '--launcher', 'pytorch', '--resume']
        printed = run(*torchrun, 'tools/train.py', killing, *where)
    assert 'There is nothing to resume in' in printed and 'at epoch 0, iteration 6' in printed
    assert_equal_states(tmp_path / 'again' / FINAL, tmp_path / 'uninterrupted' / FINAL)


def test_two_processes_draw_all_predictions(uninterrupted, tmp_path):
    """Each process draws a part of the predictions; the metrics are those of one process."""
    file, folder, _ = uninterrupted
    where = ['--work-dir', tmp_path, '--show-dir', tmp_path / 'drawn']
    arguments = [file, folder / FINAL, '--launcher', 'pytorch', *where]
    pids = [start(*arguments, tool='test', log=tmp_path / f'log{e["RANK"]}', **e) for e in two_processes()]
    assert [wait(pid) for pid in pids] == [0, 0], (tmp_path / 'log1').read_text()
    assert len(list((tmp_path / 'drawn').glob('*.png'))) == 2
    two = (tmp_path / 'metrics.json').read_text()
    assert call('test', file, folder / FINAL, '--work-dir', tmp_path) == 0
    assert (tmp_path / 'metrics.json').read_text() == two
