"""Annotations that mmdet would ignore, or that would crash a run or exhaust the memory."""

import json

import pytest

from mlp_dense.checks.data_config import category_names, check_numbers
from mlp_dense.errors import UserError
from support.configs import DETECTION

CONTENT = dict(images=[dict(id=1, width=100, height=50)], categories=[dict(id=3, name='cat'), dict(id=9, name='dog')])


def test_category_names_of_files_in_other_formats_are_empty(tmp_path):
    file = tmp_path / 'instances.json'
    file.write_text(json.dumps(CONTENT))
    assert category_names(file) == ['cat', 'dog']
    for text in ('', '[]', '{"categories": [1]}', '{"images": []}'):
        file.write_text(text)
        assert category_names(file) == []
    assert category_names(tmp_path / 'absent.json') == category_names(tmp_path / 'a.pkl') == category_names(None) == []


@pytest.mark.parametrize('text', ['NaN', 'Infinity', '-Infinity', '1e999', '2.5E+400'])
def test_invalid_numbers_are_refused(tmp_path, text):
    file = tmp_path / 'instances.json'
    file.write_text(f'{{"bbox": [0, {text}, 5, 1.5e-05, 1e+10]}}')
    with pytest.raises(UserError, match=r'instances\.json contains .* at byte 1\d'):
        check_numbers(file)
    file.write_text('{"name": "NaNcy", "bbox": [0, 1.5e-05, 1e+10], "file": "1e2345.jpg", "url": "h://b/4e622"}')
    check_numbers(file)
    file.write_text('')
    with pytest.raises(UserError, match='is empty'):
        check_numbers(file)


@pytest.mark.slow
def test_classes_in_another_order_than_in_the_file_are_refused(data, train, tmp_path):
    """Otherwise mmdet would name a disc a square, in drawings, tables of classes and checkpoints."""
    names = category_names(data / 'annotations' / 'instances_val.json')
    for classes, expected in ((names, 0), ([names[1], names[0], *names[2:]], 2)):
        changes = {f'{name}_dataloader.dataset.metainfo': dict(classes=classes) for name in ('train', 'val', 'test')}
        status, _, errors = train(DETECTION, '--work-dir', tmp_path / f'run{expected}', **changes)
        assert status == expected
    assert f"has '{names[0]}' as class 0, but metainfo has '{names[1]}'" in errors and ', '.join(names) in errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ('change', 'status', 'message'),
    [
        (lambda annotation: annotation.update(bbox=[0, 0, float('inf'), 5]), 2, 'train.json contains Infinity at byte'),
        (lambda annotation: annotation.update(segmentation=[[0, 0, float('nan'), 5, 5, 5]]), 2, 'contains NaN at byte'),
        (lambda annotation: annotation.update(category_id=99), 2, 'has no usable annotation ('),
        (
            lambda annotation: annotation['id'] % 2 and annotation.update(bbox=[500, 500, 9, 9]),
            0,
            'annotations outside of their image in',
        ),
    ],
    ids=['infinite', 'NaN', 'another category', 'outside'],
)
def test_training_reports_unusable_annotations(change_annotations, train, change, status, message):
    change_annotations('train', lambda content: [change(annotation) for annotation in content['annotations']])
    result, output, errors = train(DETECTION)
    assert result == status and message in (errors if status else output)
