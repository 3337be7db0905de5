"""Detection of formats: what is unknown, ambiguous or known but not read is named."""

import json

import pytest

from mlp_dense.errors import UserError
from mlp_dense.formats import detect, read

COCO = dict(images=[], annotations=[], categories=[dict(id=1, name='a')])
VIA = dict(filename='a.jpg', size=9, regions=[], file_attributes={})
YOLO = {'data.yaml': 'train: images\nnames: [a]', 'images/a.jpg': (8, 8), 'labels/a.txt': ''}
XML = '<annotation><size><width>8</width><height>8</height></size></annotation>'


@pytest.mark.parametrize(
    ('content', 'title'),
    [
        ({'_via_settings': {}, '_via_img_metadata': {}}, 'VGG Image Annotator'),
        ({'a.jpg9': VIA}, 'VGG Image Annotator'),
        ([dict(id=1, data=dict(image='a.jpg'), annotations=[])], 'Label Studio'),
        ([dict(image='a.jpg', annotation_id=1, label=[])], 'Label Studio'),
        ([dict(image_id=1, category_id=1, bbox=[0, 0, 1, 1], score=0.5)], 'COCO results file'),
        ([dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 1, 1])], 'without images and categories'),
        ([dict(image='a.jpg', annotations=[])], 'CreateML'),
        (dict(description='', tags=[], size={}, objects=[]), 'Supervisely'),
        (dict(info={}, categories={}, items=[]), 'Datumaro'),
        (dict(images=[], annotations=[]), 'without categories'),
    ],
)
def test_foreign_json_is_named(content, title, write_files):
    root = write_files({'labels.json': json.dumps(content), 'a.jpg': (8, 8)})
    for path in (root, root / 'labels.json'):
        with pytest.raises(UserError, match=rf'labels\.json is .*{title}.*, which is not read; '):
            detect(path)


def test_unknown_data_lists_what_was_looked_for(write_files):
    root = write_files({'a.jpg': (8, 8), 'readme.txt': 'a', 'setup.json': '{}', 'setup.yaml': 'a: 1'})
    with pytest.raises(UserError, match=r'no annotations in a known format \(coco: .*; yolo: .*; labels: .*\)'):
        detect(root)


def test_several_formats_are_an_error_until_one_is_set(write_files):
    root = write_files(YOLO | {'a.xml': XML})
    with pytest.raises(UserError, match=r'several formats: yolo \(data\.yaml\), voc \(a\.xml\); pass --format NAME'):
        read(root)
    assert read(root, 'voc').format == 'voc' and read(root, 'yolo').format == 'yolo'
    assert detect(root / 'data.yaml') == 'yolo'
    with pytest.raises(UserError, match="The format 'vok' is unknown; use coco, yolo, voc, labelme, cvat, labels"):
        read(root, 'vok')


def test_files_of_macos_and_hidden_files_are_ignored(write_files):
    junk = {f'{folder}/{name}': b'\0\5\26\7' for folder in ('__MACOSX', 'images') for name in ('._a.json', '.DS_Store')}
    junk |= {'__MACOSX/a.xml': XML, '.git/b.xml': XML, '__MACOSX/images/a.jpg': (8, 8), 'labels/._a.txt': b'\xff'}
    data = read(write_files(YOLO | junk))
    assert data.format == 'yolo' and [record.name for record in data.records()] == ['a.jpg'] and not data.notes


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('missing', None, 'does not exist; set the folder'),
        ('data.zip', b'PK', 'is an archive; unpack it'),
        ('data.json', b'', r'data\.json is empty'),
        ('data.json', b'{"images": [}', r'data\.json is not JSON, line 1'),
        ('data.json', b'{"images": NaN}', r'data\.json contains NaN; use a finite number'),
        ('data.json', b'\xff{}', r'data\.json is not a text in UTF-8'),
        ('data.json', b'[' * 100_000, r'data\.json is nested too deeply'),
        ('data.yaml', b'a: [', r'data\.yaml:1 is not YAML'),
    ],
)
def test_broken_source_is_an_error(name, content, message, write_files, tmp_path):
    root = tmp_path / 'data' if content is None else write_files({name: content})
    with pytest.raises(UserError, match=message):
        read(root / name)


def test_two_annotation_files_of_one_split_are_ambiguous(write_files):
    with pytest.raises(UserError, match=r"train_a\.json and train_b\.json are both annotations of 'train'"):
        read(write_files({'train_a.json': json.dumps(COCO), 'train_b.json': json.dumps(COCO)}))


def test_instances_are_preferred_to_captions(write_files):
    content = dict(COCO, images=[dict(id=1, file_name='a.jpg', width=8, height=8)])
    files = {f'annotations/{kind}_train2017.json': json.dumps(content) for kind in ('instances', 'person_keypoints')}
    files |= {'annotations/captions_train2017.json': '{"images": [], "annotations": []}', 'train2017/a.jpg': (8, 8)}
    assert 'instances_train2017.json.' in read(write_files(files)).found
