"""Annotations in COCO's format are repaired, or listed with a reason; other formats are named."""

import copy
import json

import pytest
from pycocotools import mask as masks

from mlp_dense.datasets import annotations as kinds
from mlp_dense.datasets.annotations import Problem, coco_mask, other_category, repair
from mlp_dense.datasets.coco_json import format_of, read_coco, read_json
from mlp_dense.errors import UserError

SIZE = (100, 50)
POLYGON = [10, 10, 30, 10, 30, 30, 10, 30]
POINTS = [[10, 10], [30, 10], [30, 30], [10, 30]]
IMAGE = dict(id=1, file_name='a.jpg', width=100, height=50)
CATEGORIES = [dict(id=3, name='cat'), dict(id=9, name='dog')]
GOOD = dict(id=1, image_id=1, category_id=3, bbox=[10, 10, 20, 20], area=400, iscrowd=0, segmentation=[POLYGON])
FIRST = dict(GOOD, bbox=[9, 9, 21, 21])
ABSENT = object()


def rle(size: tuple = SIZE, text: bool = True) -> dict:
    encoded = masks.merge(masks.frPyObjects([POLYGON], size[1], size[0]))
    counts = encoded['counts'].decode()
    return dict(size=[size[1], size[0]], counts=counts if text else [510, 100, size[0] * size[1] - 610])


def content_of(**changes) -> dict:
    other = {**GOOD, 'id': 7, 'bbox': [11, 10, 20, 20], **changes}
    other = {key: value for key, value in other.items() if value is not ABSENT}
    return copy.deepcopy(dict(images=[IMAGE], categories=CATEGORIES, annotations=[FIRST, other]))


@pytest.mark.parametrize(
    ('changes', 'problem'),
    [
        ({}, None),
        (dict(bbox=[-1, -0.5, 20, 20]), None),
        (dict(image_id=9), kinds.UNKNOWN_IMAGE),
        (dict(image_id=ABSENT), kinds.UNKNOWN_IMAGE),
        (dict(image_id=[1]), kinds.UNKNOWN_IMAGE),
        (dict(image_id='1'), kinds.REFERENCE),
        (dict(category_id='3'), kinds.REFERENCE),
        (dict(category_id=3.0), None),
        (dict(category_id=9), other_category('dog')),
        (dict(category_id=7), other_category(7)),
        (dict(category_id=ABSENT), other_category(None)),
        (dict(bbox=[10, 10, -20, 20]), kinds.SMALL_BOX),
        (dict(bbox=[10, 10, 0.5, 20]), kinds.SMALL_BOX),
        (dict(bbox=[0.1, 0.2, 0.5, 0.4]), kinds.FRACTIONS),
        (dict(bbox=[100, 0, 10, 10]), kinds.OUTSIDE),
        (dict(bbox=[0, -30, 10, 20]), kinds.OUTSIDE),
        (dict(bbox=[60, 10, 90, 40]), kinds.BEYOND),
        (dict(bbox=FIRST['bbox']), kinds.COPY),
        (dict(bbox=['11', '10', '20', '20']), None),
        (dict(bbox=[]), kinds.COMPUTED_BOX),
        (dict(bbox=ABSENT), kinds.COMPUTED_BOX),
        (dict(bbox=None, segmentation=rle()), kinds.COMPUTED_BOX),
        (dict(bbox=[1, 2, 3], segmentation=[]), kinds.NO_BOX),
        (dict(bbox=[1, 2, float('nan'), 3], segmentation=[]), kinds.NO_BOX),
        (dict(area=0), kinds.NO_AREA),
        (dict(area=ABSENT), kinds.COMPUTED_AREA),
        (dict(area='400'), kinds.COMPUTED_AREA),
        (dict(iscrowd=ABSENT), kinds.NO_CROWD),
        (dict(iscrowd='0'), kinds.FLAG),
        (dict(iscrowd=False), None),
        (dict(iscrowd=1, segmentation=rle()), kinds.CROWD),
        (dict(ignore=1), kinds.IGNORED),
        (dict(ignore=0), None),
        (dict(id=0), kinds.NUMBERED),
        (dict(id=1), kinds.NUMBERED),
        (dict(id='b3'), kinds.NUMBERED),
        (dict(id=ABSENT), kinds.NUMBERED),
        (dict(segmentation=ABSENT), kinds.NO_POLYGON),
        (dict(segmentation=None), kinds.NO_POLYGON),
        (dict(segmentation=[]), kinds.NO_POLYGON),
        (dict(segmentation=[[]]), kinds.NO_POLYGON),
        (dict(segmentation=[[10, 10]]), kinds.FEW_POINTS),
        (dict(segmentation=[[10, 10, 30, 30]]), kinds.FEW_POINTS),
        (dict(segmentation=[[10, 10, 30, 30, 'x', 30]]), kinds.FEW_POINTS),
        (dict(segmentation=[POLYGON, [1, 2]]), None),
        (dict(segmentation=POLYGON), kinds.CONVERTED),
        (dict(segmentation=POINTS), kinds.CONVERTED),
        (dict(segmentation=[POINTS]), kinds.CONVERTED),
        (dict(segmentation=[list(map(str, POLYGON))]), kinds.CONVERTED),
        (dict(segmentation=[rle()]), kinds.CONVERTED),
        (dict(segmentation=[rle(), rle(text=False)]), kinds.CONVERTED),
        (dict(segmentation=rle()), None),
        (dict(segmentation=rle(text=False)), None),
        (dict(segmentation=rle((50, 100))), kinds.RLE_SIZE),
        (dict(segmentation=dict(size=[50, 100], counts=[5, 20])), kinds.RLE_SIZE),
    ],
)  # fmt: skip
def test_problem_of_an_annotation_is_reported(changes, problem):
    content = content_of(**changes)
    repaired = repair(content, ['cat'], masks=True)
    assert list(repaired.problems) == [problem] if problem else not repaired.problems
    assert repaired.usable == 1 + (problem is None or problem.usable)
    assert [annotation['id'] for annotation in content['annotations']] == list(
        range(1, len(content['annotations']) + 1)
    )
    for annotation in content['annotations']:  # COCOeval accepts the rest
        assert annotation['iscrowd'] in (0, 1) and annotation['area'] >= 0 and len(annotation['bbox']) == 4
        assert (
            masks.area(masks.merge(masks.frPyObjects(annotation['segmentation'], 50, 100))) > 0
            if isinstance(annotation['segmentation'], list)
            else annotation['segmentation']
        )


@pytest.mark.parametrize('masks_used', [True, False])
def test_correct_annotations_keep_their_values(masks_used):
    content = content_of(bbox=[11.5, 10, 20, 20], segmentation=rle(), id=20)
    before = copy.deepcopy(content)
    assert not repair(content, None, masks_used).problems
    before['annotations'][1]['id'] = 2
    assert content == before


def test_masks_do_not_matter_for_boxes():
    assert not repair(content_of(segmentation=[])).problems


@pytest.mark.parametrize('mask', [POLYGON, POINTS, [POINTS], [rle()], [list(map(str, POLYGON))]])
def test_other_forms_of_a_mask_have_the_same_pixels(mask):
    converted, is_converted = coco_mask(mask, SIZE)
    encoded = converted if isinstance(converted, dict) else masks.merge(masks.frPyObjects(converted, 50, 100))
    assert is_converted and (masks.decode(encoded) == masks.decode(rle())).all()


def test_area_and_box_are_computed_from_the_mask():
    content = content_of(area=ABSENT, bbox=ABSENT, segmentation=[[0, 0, 20, 0, 0, 20]])
    repair(content)
    assert content['annotations'][1]['area'] == pytest.approx(200, abs=11)
    assert content['annotations'][1]['bbox'] == [0, 0, 20, 20]


def test_crowds_become_objects():
    content = content_of(iscrowd='1', segmentation=rle())
    assert repair(content, masks=True, crowds='as-objects').usable == 2
    assert [annotation['iscrowd'] for annotation in content['annotations']] == [0, 0]
    with pytest.raises(UserError, match="crowds is 'no'; set 'ignored' or 'as-objects'"):
        repair(content, crowds='no')


def test_removed_annotations_have_no_box_image_or_class():
    content = content_of()
    content['annotations'] += [3, dict(id=8), {**GOOD, 'bbox': 'x', 'segmentation': None}]
    assert repair(content).usable == 2
    assert len(content['annotations']) == 2


def test_severities_and_remedies_of_problems():
    problems = [value for value in vars(kinds).values() if isinstance(value, Problem)]
    assert {problem.severity for problem in problems} == {'error', 'warning', 'note'}
    for problem in problems:
        assert problem.remedy or problem.repaired_by, problem


@pytest.mark.parametrize(
    ('content', 'name'),
    [
        ([dict(image_id=1, category_id=1, bbox=[0, 0, 1, 1], score=1)], 'results file'),
        ({'_via_img_metadata': {}, '_via_settings': {}}, 'VIA'),
        ({'a.jpg1': dict(filename='a.jpg', regions=[])}, 'VIA'),
        (dict(version='5', shapes=[], imagePath='a.jpg'), 'LabelMe'),
        ([dict(id=1, data={}, annotations=[])], 'Label Studio'),
        ([dict(image='a.jpg', annotations=[])], 'CreateML'),
        (dict(images=[], annotations=[dict(segments_info=[])]), 'panoptic'),
        (dict(images=[], annotations=[dict(caption='a')]), 'captions'),
        (dict(type='FeatureCollection', features=[]), 'GeoJSON'),
    ],
)
def test_other_formats_are_named(tmp_path, content, name):
    (tmp_path / 'x.json').write_text(json.dumps(content))
    with pytest.raises(UserError, match=f'x.json has the format of .*{name}.*, not of COCO instances; export'):
        read_coco(tmp_path / 'x.json')
    assert not format_of(content_of())


def two(key: str, **records) -> dict:
    return {**content_of(), key: [{**record} for record in records.values()]}


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ([], 'contains a list, not COCO instances'),
        (dict(images=[], annotations=[]), "has no list 'categories'"),
        (dict(categories=CATEGORIES), "has no list 'images'"),
        (two('images', a=dict(IMAGE, id=None)), 'record 0 of image has no id'),
        (two('images', a=dict(IMAGE, file_name=None)), 'image 1 has the file_name None'),
        (two('images', a=dict(IMAGE, height=None)), 'height of image a.jpg is None'),
        (two('images', a=dict(IMAGE, width=-1)), 'width of image a.jpg is -1'),
        (two('images', a=IMAGE, b=dict(IMAGE, file_name='b.jpg')), "'a.jpg' and 'b.jpg' both have the image id 1"),
        (two('categories', a=dict(id=1)), 'category 1 has the name None'),
        (two('categories', a=dict(id=1, name='a'), b=dict(id=1, name='b')), "'a' and 'b' both have the category id 1"),
    ],
)
def test_unusable_structure_is_refused(tmp_path, content, message):
    (tmp_path / 'x.json').write_text(json.dumps(content))
    with pytest.raises(UserError, match=f'x.json.* ?{message}'):
        read_coco(tmp_path / 'x.json')


def test_sizes_of_images_as_text_or_floats_are_read(tmp_path):
    (tmp_path / 'x.json').write_text(json.dumps(two('images', a=dict(IMAGE, width='100', height=50.0))))
    image = read_coco(tmp_path / 'x.json')['images'][0]
    assert repr((image['width'], image['height'])) == '(100, 50)'


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-32'])
def test_encodings_and_byte_order_marks_are_read(tmp_path, encoding):
    (tmp_path / 'x.json').write_bytes(json.dumps({'ä': '日本'}, ensure_ascii=False).encode(encoding))
    assert read_json(tmp_path / 'x.json') == {'ä': '日本'}


@pytest.mark.parametrize('data', [b'{"a": 1', b'', b'{"a": "\xff"}'])
def test_damaged_files_are_refused(tmp_path, data):
    (tmp_path / 'x.json').write_bytes(data)
    with pytest.raises(UserError, match=r'x\.json is not '):
        read_json(tmp_path / 'x.json')
