"""Writing: links, losses, folders that are not touched."""

import json
import os
import re
from pathlib import Path

import pytest

from mlp_dense.errors import UserError
from mlp_dense.formats import counts, read, write
from support.configs import ROOT
from support.formats import write_as

TRIANGLE, SQUARE = [1, 1, 5, 1, 5, 4], [10, 10, 10, 20, 20, 20, 20, 10]
MASK = dict(size=[40, 60], counts=[41, 2, 2357])
NAMES = ('disc', 'square', 'star')


@pytest.fixture
def mixed(write_files):
    """Return an image with an object of each kind: box, two polygons, mask, crowd, and a box unlike its polygon."""
    base = dict(image_id=1, category_id=1, bbox=[1, 1, 4, 3], area=1, iscrowd=0)
    shapes = [
        dict(base),
        dict(base, segmentation=[TRIANGLE, SQUARE], bbox=[1, 1, 19, 19]),
        dict(base, segmentation=MASK, bbox=[1, 1, 1, 2]),
        dict(base, segmentation=MASK, iscrowd=1),
        dict(base, segmentation=[TRIANGLE], bbox=[0, 0, 9, 9]),
    ]
    content = dict(
        images=[dict(id=1, file_name='a.jpg', width=60, height=40)],
        categories=[dict(id=1, name='cat')],
        annotations=[dict(shape, id=i) for i, shape in enumerate(shapes, start=1)],
    )
    return read(write_files({'annotations.json': json.dumps(content), 'a.jpg': (60, 40)}))


def test_coco_expresses_everything(mixed, tmp_path):
    lines = write(mixed, tmp_path / 'new', 'coco').lines
    assert read(tmp_path / 'new').splits['train'][0].annotations == mixed.splits['train'][0].annotations
    assert 'objects: 5 -> 5' in lines and 'crowds: 1 -> 1' in lines and 'with masks: 2 -> 2' in lines
    assert not any('changed' in line or 'left out' in line for line in lines)


def test_rows_of_zero_are_omitted(samples, tmp_path):
    lines = write(read(write_as('coco', tmp_path / 'old', samples)), tmp_path / 'new', 'coco').lines
    assert [line.partition(':')[0] for line in lines] == [
        *('images of train', 'images of val', 'objects', 'with polygons', 'classes')
    ]


def test_losses_of_yolo_are_counted(mixed, tmp_path):
    lines = write(mixed, tmp_path / 'new', 'yolo').lines
    assert 'objects: 5 -> 4' in lines and 'crowds: 1 -> 0' in lines
    assert [line for line in lines if 'annotation' in line] == [
        '1 object left out: YOLO has no crowd regions (a.jpg annotation 4).',
        '1 object changed: YOLO has one outline for each object, so several are joined by lines without width '
        '(a.jpg annotation 2).',
        '1 object changed: YOLO has no pixel masks, so the box remains (a.jpg annotation 3).',
        '1 object changed: YOLO derives the box from the outline (a.jpg annotation 5).',
    ]
    box, two, mask, _ = read(tmp_path / 'new').splits['train'][0].annotations
    assert not box.polygons and not mask.polygons and tuple(mask.box) == (1, 1, 1, 2)
    assert tuple(two.box) == (1, 1, 19, 19) and set(zip(two.polygons[0][::2], two.polygons[0][1::2], strict=True)) == {
        (1, 1), (5, 1), (5, 4), (10, 10), (10, 20), (20, 20), (20, 10)
    }  # fmt: skip


def test_joined_outline_encloses_the_area_of_all_polygons():
    from mlp_dense.formats.records import Annotation, Box, area_of
    from mlp_dense.formats.yolo import joined

    polygons = tuple(map(tuple, (TRIANGLE, SQUARE, [30, 30, 30, 36, 38, 30])))
    areas = [area_of(Annotation(0, Box(0, 0, 0, 0), each)) for each in (polygons, (joined(polygons),))]
    assert areas == [6 + 100 + 24] * 2


def test_losses_of_voc_are_counted(mixed, tmp_path):
    lines = write(mixed, tmp_path / 'new', 'voc').lines
    assert 'objects: 5 -> 4' in lines and 'with polygons: 2 -> 0' in lines
    assert '3 objects changed: VOC has no outlines or masks, so the box remains' in ' '.join(lines)
    boxes = [annotation.box for annotation in read(tmp_path / 'new').splits['train'][0].annotations]
    assert boxes == [a.box for a in mixed.splits['train'][0].annotations if not a.crowd]


def test_genuine_boxes_survive_coco_yolo_coco(shared, tmp_path):
    before = read(shared / 'data' / 'coco_tiny')
    lines = write(before, tmp_path / 'yolo', 'yolo').lines
    write(read(tmp_path / 'yolo'), tmp_path / 'coco', 'coco')
    after = read(tmp_path / 'coco')
    errors = []
    for record, again in zip(before.records(), after.records(), strict=True):
        kept = [annotation for annotation in record.annotations if not annotation.crowd]
        for annotation, other in zip(kept, again.annotations, strict=True):
            errors.append(max(abs(a - b) for a, b in zip(annotation.box, other.box, strict=True)))
            assert annotation.polygons == other.polygons or len(annotation.polygons) > 1
    assert len(errors) == 2917 and max(errors) == 0
    assert 'objects: 2947 -> 2917' in lines and 'crowds: 30 -> 0' in lines


@pytest.mark.parametrize('target', ['coco', 'yolo', 'voc'])
def test_images_are_linked(target, samples, tmp_path):
    root = write_as('coco', tmp_path / 'data', samples, NAMES)
    data = read(root)
    write(data, tmp_path / 'new', target)
    links = {record.name: record.file for record in read(tmp_path / 'new').records()}
    for record in data.records():
        assert os.path.samefile(links[record.name], record.file) and not links[record.name].is_symlink()
    assert not list(tmp_path.glob('.new*')), 'no temporary folder remains'


def test_images_are_copied_to_another_file_system(samples, tmp_path, monkeypatch):
    data = read(write_as('coco', tmp_path / 'data', samples, NAMES))
    monkeypatch.setattr(os, 'link', lambda *_: (_ for _ in ()).throw(OSError(18, 'Invalid cross-device link')))
    write(data, tmp_path / 'new', 'coco')
    for record, copy in zip(data.records(), read(tmp_path / 'new').records(), strict=True):
        assert copy.file.read_bytes() == record.file.read_bytes() and not os.path.samefile(copy.file, record.file)


def test_existing_files_stay(mixed, tmp_path):
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'mine.txt').write_text('x')
    with pytest.raises(UserError, match='full is not empty; choose another folder'):
        write(mixed, tmp_path / 'full', 'coco')
    with pytest.raises(UserError, match=r'mine\.txt is a file; choose another folder'):
        write(mixed, tmp_path / 'full' / 'mine.txt', 'coco')
    with pytest.raises(UserError, match='lies in the folder of the data'):
        write(mixed, mixed.root / 'new', 'coco')
    assert [path.name for path in (tmp_path / 'full').iterdir()] == ['mine.txt']


def test_failed_conversion_leaves_nothing(mixed, tmp_path):
    mixed.splits['train'] *= 2
    (tmp_path / 'new').mkdir()
    with pytest.raises(UserError, match=r'a\.jpg and a\.jpg would share a label file; rename one'):
        write(mixed, tmp_path / 'new', 'yolo')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['data', 'new'] and not any((tmp_path / 'new').iterdir())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('cvat',), "The format 'cvat' is unknown; use coco, yolo, voc, labels"),
        (('coco', 'move'), "images is 'move'; use 'link' or 'keep'"),
        (('labels',), 'contains objects, which the format labels cannot store; choose coco, yolo or voc'),
        (('yolo', 'keep'), 'yolo needs the images of .* in its folder; use images="link"'),
    ],
)
def test_impossible_targets_are_refused(arguments, message, mixed, tmp_path):
    with pytest.raises(UserError, match=message):
        write(mixed, tmp_path / 'new', *arguments)


def test_split_names_of_yolo(mixed, tmp_path):
    mixed.splits = {'batch1': mixed.splits['train']}
    with pytest.raises(UserError, match="YOLO has no split 'batch1'; use train, val and test"):
        write(mixed, tmp_path / 'new', 'yolo')


def test_equal_names_in_two_splits_get_folders_in_voc(mixed, tmp_path):
    mixed.splits['val'] = mixed.splits['train']
    write(mixed, tmp_path / 'new', 'voc')
    assert (tmp_path / 'new' / 'JPEGImages' / 'val' / 'a.jpg').is_file()
    assert counts(read(tmp_path / 'new'))['images of val'] == 1


def test_names_of_classes_survive(mixed, tmp_path):
    mixed.classes = ['cat: "small" & <wild>', 'background', 'no', '3', 'Straße']
    for target in ('coco', 'yolo', 'voc'):
        write(mixed, tmp_path / target, target)
        assert read(tmp_path / target).classes == mixed.classes


def test_no_image_is_written_outside_of_the_folder(write_files, tmp_path):
    images = [dict(id=i, file_name=name, width=8, height=8) for i, name in enumerate(('../b.jpg', 'a.jpg'))]
    content = json.dumps(dict(images=images, annotations=[], categories=[dict(id=1, name='cat')]))
    data = read(write_files({'x/y/a.json': content, 'x/y/a.jpg': (8, 8), 'x/b.jpg': (8, 8)}))
    assert [record.name for record in data.records()] == ['b.jpg', 'y/a.jpg']
    write(data, tmp_path / 'new', 'coco')
    assert len(list((tmp_path / 'new' / 'train').rglob('*.jpg'))) == 2


def test_example_of_the_documents_runs(samples, tmp_path, monkeypatch, capsys):
    write_as('labelme', tmp_path / 'fruits', samples, NAMES)
    (code,) = re.findall(r'```python\n(.+?)```', (ROOT / 'docs' / 'formats.md').read_text(encoding='utf-8'), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    variables = {}
    exec(code, variables)
    assert variables['places']['val'].annotations == Path('fruits_coco', 'annotations', 'instances_val.json')
    assert (tmp_path / 'fruits_yolo' / 'data.yaml').is_file() and 'LabelMe annotations: ' in capsys.readouterr().out
