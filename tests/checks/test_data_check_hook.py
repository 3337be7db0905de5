"""What is wrong with images and labels, said before the first iteration."""

import json
import shutil
from pathlib import Path

import cv2
import pytest

from mlp_dense.checks.data_check_hook import _is_cut_off
from mlp_dense.datasets.shapes import write_shapes
from support.configs import DETECTION, SEGMENTATION
from support.tools import call
from support.trainings import write_config

SHORT = {
    DETECTION: {'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1},
    SEGMENTATION: {'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2},
}


@pytest.fixture
def data(tmp_path) -> Path:
    write_shapes(tmp_path / 'data', num_train=8, num_val=4, size=96)
    return tmp_path / 'data'


@pytest.fixture
def train(data, tmp_path, capsys):
    """Runs the tool; returns its exit status, what it prints and its errors."""

    def train(base: str, *options, **changes) -> tuple[int, str, str]:
        file = write_config(base, tmp_path, data, **SHORT[base], **changes)
        status = call('train', file, '--work-dir', tmp_path / 'run', *options)
        return status, *capsys.readouterr()

    return train


@pytest.mark.slow
def test_table(data, train):
    """Images that are unreadable, and of another size than annotated."""
    train_images = sorted((data / 'train').iterdir())
    train_images[1].write_bytes(b'no image')
    file = data / 'annotations' / 'instances_train.json'
    content = json.loads(file.read_text())
    content['images'][2]['width'] += 7
    file.write_text(json.dumps(content))
    status, said, errors = train(DETECTION, max_unreadable=0.2)
    assert status == 0, errors
    table = said[said.index('What is wrong with the data') :]
    assert f'train 1 cannot be read, and will be skipped: {train_images[1]} is missing' in table
    assert f'train 1 are of another size than their annotations say: {train_images[2]}\n' in table
    assert 'in the training data, too' not in table


def test_half_an_image(data):
    """OpenCV 4 fills the rest of a JPEG with grey, OpenCV 5 refuses it."""
    file = next((data / 'train').iterdir())
    assert not _is_cut_off(file)
    file.write_bytes(file.read_bytes()[:-300])
    assert _is_cut_off(file)


@pytest.mark.slow
def test_validated_on_what_was_trained_on(data, train):
    shutil.copy(data / 'annotations' / 'instances_train.json', data / 'annotations' / 'instances_val.json')
    status, said, _ = train(DETECTION, **{'val_dataloader.dataset.data_prefix.img': 'train/'})
    assert status == 0
    assert 'val   2 are in the training data, too: the metrics will be too good: ' in said


@pytest.mark.slow
def test_nothing_wrong_is_not_said(train):
    status, said, _ = train(SEGMENTATION)
    assert status == 0 and 'What is wrong' not in said


@pytest.mark.slow
@pytest.mark.parametrize(('options', 'found'), [([], False), (['--check-data'], True)])
def test_a_sample_or_all(data, train, monkeypatch, options, found):
    monkeypatch.setattr('mlp_dense.checks.data_check_hook.SAMPLE', 2)
    file = sorted((data / 'labels' / 'train').iterdir())[3]
    labels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    labels[:] = 200
    cv2.imwrite(str(file), labels)
    status, said, errors = train(SEGMENTATION, *options, **{'train_dataloader.sampler.shuffle': False})
    assert status == 2 and f'{file.name} holds the label 200' in errors
    assert ('train 1 would stop the run: ' in said) == found
    assert ('Iter(train)' in said) != found


@pytest.mark.slow
@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (lambda each: each.pop('segmentation'), 'fails on what is annotated there'),
        (lambda each: each.update(segmentation=[]), 'fails on what is annotated there'),
        (
            lambda each: each.update(segmentation=dict(size=[5, 5], counts=[5, 20]), iscrowd=0),
            'fails on what is annotated there',
        ),
    ],
    ids=['absent', 'empty', 'RLE of another size'],
)
def test_segmentation_that_is_none(data, train, change, said):
    file = data / 'annotations' / 'instances_train.json'
    content = json.loads(file.read_text())
    for each in content['annotations'][:1]:
        change(each)
    file.write_text(json.dumps(content))
    status, _, errors = train(DETECTION)
    assert status == 2 and said in errors and len(errors.strip().splitlines()) == 1
