"""Annotation files as tools export them train with the right values, or are refused before the first iteration."""

import json
import re

import numpy as np
import pytest
from pycocotools import mask as masks

from support.configs import DETECTION

VIA = {'_via_settings': {}, '_via_img_metadata': {}}
MMDET = {  # the types of mmdet itself
    **{f'{name}_dataloader.dataset.type': 'mmdet.CocoDataset' for name in ('train', 'val', 'test')},
    'val_evaluator.type': 'mmdet.CocoMetric',
}


def rle_of(annotation: dict) -> dict:
    rle = masks.merge(masks.frPyObjects(annotation['segmentation'], 96, 96))
    return dict(size=[96, 96], counts=rle['counts'].decode())


def points_of(annotation: dict) -> list:
    return [np.reshape(polygon, (-1, 2)).tolist() for polygon in annotation['segmentation']]


def each(change):
    """Return a change of all annotations of a file: the values that a function of the annotation returns, or not."""

    def change_all(content: dict) -> None:
        for annotation in content['annotations']:
            for key, value in change(annotation).items():
                if value is None:
                    annotation.pop(key)
                else:
                    annotation[key] = value

    return change_all


NOTHING = {
    'crowds': (each(lambda a: dict(iscrowd=1, segmentation=rle_of(a))), r'marked with iscrowd.*--crowds as-objects'),
    'ignored': (each(lambda a: dict(ignore='1')), r'marked with `ignore`.*remove `ignore`'),
    'empty': (lambda content: content.update(annotations=[]), r'it has none\); add annotations'),
    'absent': (lambda content: content.pop('annotations'), r'it has none\); add annotations'),
    'two points': (each(lambda a: dict(segmentation=[a['segmentation'][0][:4]])), 'without a polygon of 3 points'),
    'fractions': (each(lambda a: dict(bbox=[0.1, 0.1, 0.2, 0.2])), 'with a box in fractions of the image'),
}


@pytest.mark.slow
@pytest.mark.parametrize('filter_empty_gt', [False, True])
@pytest.mark.parametrize('name', NOTHING)
def test_training_on_nothing_is_refused(change_annotations, train, name, filter_empty_gt):
    change, message = NOTHING[name]
    change_annotations('train', change)
    status, _, errors = train(DETECTION, **{'train_dataloader.dataset.filter_cfg.filter_empty_gt': filter_empty_gt})
    assert status == 2
    assert re.search(f'has no usable annotation .*{message}', errors), errors


@pytest.mark.slow
def test_validation_without_objects_is_listed(change_annotations, train):
    change_annotations('val', lambda content: content.pop('annotations'))
    status, output, errors = train(DETECTION)
    assert status == 0, errors
    assert 'warning val        1  files without a usable annotation: the metrics are undefined: ' in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda content: content['annotations'][0].pop('segmentation'), 'annotations without a polygon in'),
        (lambda content: content['annotations'][0].update(segmentation=[]), 'example id 1; use a RetinaNet config, or'),
        (
            lambda content: content['annotations'][0].update(segmentation=dict(size=[5, 5], counts=[5, 20])),
            'annotations with an RLE of another size than their image in',
        ),
        (lambda content: content['images'][1].update(id=content['images'][0]['id']), "'000000.jpg' and '000001.jpg'"),
        (lambda content: content['images'][0].pop('height'), 'height of image 000000.jpg is None; set'),
        (lambda content: content['images'][0].pop('file_name'), 'image 0 has the file_name None; set'),
        (lambda content: content.pop('categories'), "has no list 'categories'"),
    ],
    ids=['no polygon', 'empty polygon', 'size of an RLE', 'two records', 'height', 'file_name', 'categories'],
)  # fmt: skip
@pytest.mark.parametrize('split', ['train', 'val'])
def test_unusable_files_are_refused(change_annotations, train, change, message, split):
    change_annotations(split, change)
    status, _, errors = train(DETECTION)
    assert status == 2 and message in errors and f'instances_{split}.json' in errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ('content', 'name'),
    [
        (VIA, 'VIA'),
        (dict(version='5', shapes=[], imagePath='a.jpg'), 'LabelMe'),
        ([dict(id=1, data={}, annotations=[])], 'Label Studio'),
        ([dict(image_id=1, category_id=1, bbox=[0, 0, 1, 1], score=1)], 'detections (a results file of a test)'),
    ],
)
def test_other_formats_are_named(data, train, content, name):
    (data / 'annotations' / 'instances_train.json').write_text(json.dumps(content))
    status, _, errors = train(DETECTION)
    assert status == 2 and f'has the format of {name}, not of COCO instances; export the annotations' in errors


REPAIRED = {
    'without iscrowd': each(lambda a: dict(iscrowd=None)),
    'iscrowd as text': each(lambda a: dict(iscrowd='0')),
    'without area': each(lambda a: dict(area=None)),
    'without bbox': each(lambda a: dict(bbox=None)),
    'ids as text': each(lambda a: dict(id=f'a{a["id"]}')),
    'ids from 0': each(lambda a: dict(id=a['id'] - 1)),
    'equal ids': each(lambda a: dict(id=1)),
    'image_id as text': each(lambda a: dict(image_id=str(a['image_id']))),
    'category_id as text': each(lambda a: dict(category_id=str(a['category_id']))),
    'flat polygon': each(lambda a: dict(segmentation=a['segmentation'][0])),
    'polygon of points': each(lambda a: dict(segmentation=points_of(a))),
    'RLE in a list': each(lambda a: dict(segmentation=[rle_of(a)])),
    'RLE as crowd': each(lambda a: dict(segmentation=rle_of(a), iscrowd=1)),
}


def losses_and_metrics(output: str) -> list[str]:
    """Return the numbers that a training run logged."""
    words = re.findall(r'(?:loss\w*|\w+_mAP\w*):? +(-?[\d.]+)', output)
    assert len(words) > 8
    return words


@pytest.fixture(scope='module')
def expected(tmp_path_factory):
    return {}


@pytest.mark.slow
@pytest.mark.parametrize('name', REPAIRED)
def test_equal_annotations_in_another_form_give_equal_numbers(
    change_annotations, train, data, tmp_path, expected, name
):
    """Boxes and areas computed from masks may differ in the last digits, so that they are not compared."""
    options = ['--seed', 0, *(['--crowds', 'as-objects'] if name == 'RLE as crowd' else [])]
    if not expected:
        status, output, errors = train(DETECTION, *options)
        assert status == 0, errors
        expected['numbers'] = losses_and_metrics(output)
    for split in ('train', 'val'):
        change_annotations(split, REPAIRED[name])
    status, output, errors = train(DETECTION, *options, '--work-dir', tmp_path / 'other')
    assert status == 0, errors
    if name not in ('without area', 'without bbox', 'flat polygon'):
        assert losses_and_metrics(output) == expected['numbers']


@pytest.mark.slow
def test_byte_order_mark_is_read(data, train):
    for file in (data / 'annotations').iterdir():
        file.write_bytes(b'\xef\xbb\xbf' + file.read_bytes())
    assert train(DETECTION)[0] == 0


@pytest.mark.slow
def test_unusable_part_is_one_row_with_count_and_example(change_annotations, train):
    def change(content: dict) -> None:
        for annotation in content['annotations'][:3]:
            annotation['segmentation'] = [annotation['segmentation'][0][:4]]

    for split in ('train', 'val'):
        change_annotations(split, change)
    status, output, errors = train(DETECTION)
    assert status == 0, errors
    for split in ('train', 'val'):
        assert f'warning {split:<5}      3  annotations without a polygon of 3 points in ' in output
    assert 'instances_train.json: id 1, id 2, id 3\n' in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('without area', "without an area, which is computed, for example id 1; set type='mlp_dense.CocoDataset'"),
        ('iscrowd as text', "set type='mlp_dense.CocoDataset', which repairs them"),
        ('without iscrowd', "set type='mlp_dense.CocoMetric', which repairs them"),
        ('ids as text', "set type='mlp_dense.CocoMetric', which repairs them"),
        ('flat polygon', "set type='mlp_dense.CocoDataset', which repairs them"),
        ('one id', 'both have the image id 0; give each image its own id'),
    ],
)
def test_types_of_mmdet_are_refused_where_they_would_fail(change_annotations, train, name, message):
    for split in ('train', 'val'):
        change_annotations(split, REPAIRED.get(name, lambda content: content['images'][1].update(id=0)))
    status, _, errors = train(DETECTION, **MMDET)
    assert status == 2 and message in errors


@pytest.mark.slow
def test_class_without_an_object_is_listed(change_annotations, train):
    def change(content: dict) -> None:
        content['annotations'] = [a for a in content['annotations'] if a['category_id'] != 2]

    change_annotations('train', change)
    status, output, _ = train(DETECTION)
    assert status == 0 and 'warning train      1  classes without an object: square\n' in output


@pytest.mark.slow
@pytest.mark.parametrize(('limit', 'status'), [(0.01, 2), (0.5, 0)])
def test_missing_images_are_listed_before_training(data, train, limit, status):
    file = min((data / 'train').iterdir())
    file.rename(file.with_suffix('.JPG'))
    result, output, _ = train(DETECTION, max_unreadable=limit)
    assert result == status and f'train      1  images are missing: {file}\n' in output
    assert '-> rename them: the folder has 000000.JPG' in output
