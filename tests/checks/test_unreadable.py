"""Images that cannot be decoded, and loading processes that are killed."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from support.configs import DETECTION, SEGMENTATION
from support.trainings import records_of

TWICE = {  # every image is loaded twice
    DETECTION: {'train_cfg.max_epochs': 2, 'train_cfg.val_interval': 2},
    SEGMENTATION: {'train_cfg.max_iters': 8, 'train_cfg.val_interval': 8},
}


@HOOKS.register_module(force=True)
class KillLoadingHook(Hook):
    """Hook that kills a loading process, as the system does when memory is full."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 1:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)


def spoil(folder: Path, number: int = 1) -> list[str]:
    files = sorted(folder.iterdir())[:number]
    for file in files:
        file.write_bytes(file.read_bytes()[:60])
    return [file.name for file in files]


@pytest.mark.slow
@pytest.mark.parametrize(
    ('base', 'folder', 'workers'),
    [(DETECTION, 'train', 2), (SEGMENTATION, 'train', 0), (SEGMENTATION, 'labels/train', 2)],
)
def test_unreadable_image_is_skipped_and_reported_once(data, train, tmp_path, base, folder, workers):
    names = spoil(data / folder, 2)
    changes = {'max_unreadable': 0.25, 'train_dataloader.num_workers': workers, **TWICE[base]}
    changes['train_dataloader.persistent_workers'] = workers > 0
    status, output, _ = train(base, '--seed', 0, **changes)
    assert status == 0
    for name in names:
        assert output.count(f'{name} is missing or not a readable image; replace or remove it. Skipped; ') == 1
    assert '2 of 8 images cannot be read so far' in output
    assert sum(key[1] for key in records_of(tmp_path / 'run')) == 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ('number', 'limit', 'message'), [(1, None, '1 of 8'), (3, 0.25, '3 of 8'), (8, 1.0, 'The next 7 images')]
)
def test_too_many_unreadable_images_end_the_training(data, train, number, limit, message):
    spoil(data / 'train', number)
    status, _, errors = train(SEGMENTATION, **TWICE[SEGMENTATION], **({'max_unreadable': limit} if limit else {}))
    assert status == 2 and message in errors
    assert f'{data}/train/' in errors and '.jpg is missing or not a readable image' in errors


@pytest.mark.slow
def test_killed_loading_process_is_explained(train):
    changes = {'train_dataloader.num_workers': 2, 'custom_hooks': [dict(type='KillLoadingHook')]}
    status, _, errors = train(SEGMENTATION, **TWICE[SEGMENTATION], **changes)
    assert status == 2 and 'A loading process was killed (DataLoader worker (pid' in errors
    assert 'num_workers' in errors
