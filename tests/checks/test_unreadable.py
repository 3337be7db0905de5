"""Images that cannot be decoded, and loading processes that are killed."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mlp_dense.datasets.shapes import write_shapes
from support.configs import DETECTION, SEGMENTATION
from support.tools import call
from support.trainings import records_of, write_config

SHORT = {
    DETECTION: {'train_cfg.max_epochs': 2, 'train_cfg.val_interval': 2},
    SEGMENTATION: {'train_cfg.max_iters': 8, 'train_cfg.val_interval': 8},
}


@HOOKS.register_module(force=True)
class KillLoadingHook(Hook):
    """Hook that kills a loading process, as the system does when memory is full."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 1:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)


@pytest.fixture
def data(tmp_path) -> Path:
    write_shapes(tmp_path / 'data', num_train=8, num_val=4, size=96)
    return tmp_path / 'data'


def spoil(folder: Path, number: int = 1) -> list[str]:
    files = sorted(folder.iterdir())[:number]
    for file in files:
        file.write_bytes(file.read_bytes()[:60])
    return [file.name for file in files]


@pytest.mark.slow
@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize(
    ('base', 'folder'), [(DETECTION, 'train'), (SEGMENTATION, 'train'), (SEGMENTATION, 'labels/train')]
)
def test_unreadable_image_is_skipped_and_reported_once(data, tmp_path, capsys, base, folder, workers):
    names = spoil(data / folder, 2)
    changes = {'max_unreadable': 0.25, 'train_dataloader.num_workers': workers, **SHORT[base]}
    changes['train_dataloader.persistent_workers'] = workers > 0
    file = write_config(base, tmp_path, data, **changes)
    assert call('train', file, '--work-dir', tmp_path / 'run', '--seed', 0) == 0
    output = capsys.readouterr().out
    for name in names:
        assert output.count(f'{name} is missing or not a readable image; replace or remove it. Skipped; ') == 1
    assert '2 of 8 images cannot be read so far' in output
    assert sum(key[1] for key in records_of(tmp_path / 'run')) == 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ('number', 'limit', 'message'), [(1, None, '1 of 8'), (3, 0.25, '3 of 8'), (8, 1.0, 'Nor can 7 images')]
)
def test_too_many_unreadable_images_end_the_training(data, tmp_path, capsys, number, limit, message):
    spoil(data / 'train', number)
    changes = {} if limit is None else {'max_unreadable': limit}
    file = write_config(SEGMENTATION, tmp_path, data, **SHORT[SEGMENTATION], **changes)
    assert call('train', file, '--work-dir', tmp_path / 'run') == 2
    text = capsys.readouterr().err
    assert message in text and '.jpg is missing or not a readable image' in text and len(text.strip().splitlines()) == 1


@pytest.mark.slow
def test_killed_loading_process_is_explained(data, tmp_path, capsys):
    changes = {'train_dataloader.num_workers': 2, 'custom_hooks': [dict(type='KillLoadingHook')]}
    file = write_config(SEGMENTATION, tmp_path, data, **SHORT[SEGMENTATION], **changes)
    assert call('train', file, '--work-dir', tmp_path / 'run') == 2
    error = capsys.readouterr().err
    assert 'A loading process was killed (DataLoader worker (pid' in error and 'num_workers' in error
    assert len(error.strip().splitlines()) == 1
