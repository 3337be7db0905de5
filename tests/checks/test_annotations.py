"""Annotations that would vanish, crash or exhaust the memory."""

import json
from pathlib import Path

import pytest

from mlp_dense.checks.annotations import check_numbers, left_out
from mlp_dense.datasets.shapes import write_shapes
from mlp_dense.errors import UserError
from support.configs import DETECTION
from support.tools import call
from support.trainings import write_config

IMAGES = {1: dict(width=100, height=50)}
GOOD = dict(id=1, image_id=1, category_id=3, bbox=[10, 10, 20, 20], area=400)


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({}, None),
        (dict(bbox=[-5, -5, 20, 20]), None),
        (dict(image_id=9), 'of an image that is not listed'),
        (dict(category_id=9), 'of another category'),
        (dict(bbox=[10, 10, -20, 20]), 'with a box smaller than a pixel, or none'),
        (dict(bbox=[10, 10, 0.5, 20]), 'with a box smaller than a pixel, or none'),
        (dict(bbox=[]), 'with a box smaller than a pixel, or none'),
        (dict(area=0), 'with a box smaller than a pixel, or none'),
        (dict(bbox=[100, 0, 10, 10]), 'outside of their image'),
        (dict(bbox=[0, -30, 10, 20]), 'outside of their image'),
    ],
)
def test_left_out(changes, reason):
    assert left_out(IMAGES, [GOOD, {**GOOD, **changes, 'id': 7}], [3]) == ({reason: [7]} if reason else {})


@pytest.mark.parametrize('text', ['NaN', 'Infinity', '-Infinity', '1e999', '2.5E+400'])
def test_numbers_that_are_none(tmp_path, text):
    file = tmp_path / 'instances.json'
    file.write_text(f'{{"bbox": [0, {text}, 5, 1.5e-05, 1e+10]}}')
    with pytest.raises(UserError, match=r'instances\.json holds .* at byte 1\d'):
        check_numbers(file)
    file.write_text('{"name": "NaNcy", "bbox": [0, 1.5e-05, 1e+10], "file": "1e2345.jpg", "url": "h://b/4e622"}')
    check_numbers(file)
    file.write_text('')
    with pytest.raises(UserError, match='is empty'):
        check_numbers(file)


@pytest.fixture
def data(tmp_path) -> Path:
    write_shapes(tmp_path / 'data', num_train=8, num_val=4, size=96)
    return tmp_path / 'data'


@pytest.mark.slow
def test_classes_in_another_order_than_in_the_file(data, tmp_path, capsys):
    """mmdet would name a disc a square, in drawings, tables of classes and checkpoints."""
    names = [
        each['name'] for each in json.loads((data / 'annotations' / 'instances_val.json').read_text())['categories']
    ]
    for classes, status in ((names, 0), ([names[1], names[0], *names[2:]], 2)):
        config = write_config(DETECTION, tmp_path, data, **{'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1})
        options = [f'{name}_dataloader.dataset.metainfo.classes={classes}' for name in ('train', 'val', 'test')]
        where = ['--work-dir', tmp_path / f'run{status}', '--cfg-options']
        assert call('train', config, *where, *[each.replace(' ', '').replace("'", '') for each in options]) == status
    assert f"has '{names[0]}' as class 0, where metainfo has '{names[1]}'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ('change', 'status', 'said'),
    [
        (lambda each: each.update(bbox=[0, 0, float('inf'), 5]), 2, 'instances_train.json holds Infinity at byte'),
        (lambda each: each.update(segmentation=[[0, 0, float('nan'), 5, 5, 5]]), 2, 'holds NaN at byte'),
        (lambda each: each.update(category_id=99), 2, 'has no usable annotation: all are of another category'),
        (
            lambda each: each['id'] % 2 and each.update(bbox=[500, 500, 9, 9]),
            0,
            'outside of their image are left out of',
        ),
    ],
    ids=['infinite', 'NaN', 'another category', 'outside'],
)
def test_training_says_so(data, tmp_path, capsys, change, status, said):
    file = data / 'annotations' / 'instances_train.json'
    content = json.loads(file.read_text())
    for each in content['annotations']:
        change(each)
    file.write_text(json.dumps(content))
    config = write_config(DETECTION, tmp_path, data, **{'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1})
    assert call('train', config, '--work-dir', tmp_path / 'run') == status
    printed = capsys.readouterr()
    assert said in (printed.err if status else printed.out)
