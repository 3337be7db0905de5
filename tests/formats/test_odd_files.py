"""Odd but valid files are read right, and what differs is noted."""

import codecs
import json

import cv2
import pytest
from PIL import Image

from mlp_dense.formats import places_of, read, write

IMAGE = dict(id=1, file_name='a.jpg', width=60, height=40)
OBJECT = dict(id=1, image_id=1, category_id=1, bbox=[1, 2, 3, 4], area=12, iscrowd=0, segmentation=[])
CATEGORIES = [dict(id=1, name='cat'), dict(id=2, name='dog')]
YAML = 'train: images\nnames: [cat, dog]'
TRIANGLE = [1, 1, 5, 1, 5, 4]


def coco(*annotations: dict, images=(IMAGE,), **changes) -> dict:
    content = dict(images=images, annotations=annotations, categories=CATEGORIES) | changes
    return {'a.json': json.dumps(content), 'a.jpg': (60, 40)}


def only(data):
    (record,) = data.records()
    return record


@pytest.mark.parametrize(
    ('files', 'reason'),
    [
        (coco(dict(OBJECT, id='x1')), 'annotation ids are not integers (x1)'),
        (coco(OBJECT, OBJECT), 'annotation ids are used twice (1)'),
        (coco(dict(OBJECT, image_id='1'), images=[dict(IMAGE, id='1')]), 'image ids are not integers (1'),
        (coco(dict(OBJECT, category_id='1')), 'category ids are not integers (1)'),
        (coco({key: OBJECT[key] for key in OBJECT if key != 'area'}), 'areas are missing or text (1)'),
        (coco({key: OBJECT[key] for key in OBJECT if key != 'iscrowd'}), 'values of iscrowd are missing or text (1)'),
        (coco(dict(OBJECT, iscrowd='0')), 'values of iscrowd are missing or text (1)'),
        (coco(dict(OBJECT, bbox=['1', '2', '3', '4'])), 'boxes are missing or text (1)'),
        (coco(OBJECT, images=[dict(id=1, file_name='a.jpg')]), 'images have no width or height (a.jpg)'),
        (coco(OBJECT, dict(OBJECT, id=2, image_id=9)), 'annotations refer to images that are not listed (2)'),
        (coco(OBJECT, images=[dict(IMAGE, file_name='other/folder/a.jpg')]), 'file names are not relative to one'),
        (coco(dict(OBJECT, segmentation=[[1, 1, 2, 2]])), 'polygons have fewer than three points (1)'),
        (coco(dict(OBJECT, segmentation=TRIANGLE)), 'polygons are not in lists (1)'),
        (coco(dict(OBJECT, segmentation=[dict(size=[40, 60], counts=[0, 2400])])), 'run-length encodings are in lists'),
        ({'a.json': codecs.BOM_UTF8 + coco(OBJECT)['a.json'].encode(), 'a.jpg': (60, 40)}, 'a byte-order mark'),
    ],
)  # fmt: skip
def test_irregular_coco_gets_a_normalized_copy(files, reason, write_files, tmp_path):
    data = read(write_files(files))
    assert any(f'needs a normalized copy for training: {reason}' in note or reason in note for note in data.notes)
    record = only(data)
    assert tuple(record.annotations[0].box) == (1, 2, 3, 4) and not record.annotations[0].crowd
    ((file, folder, _),) = places_of(data, tmp_path / 'new').places.values()
    content = json.loads(file.read_text())
    assert (folder / content['images'][0]['file_name']).is_file() and content['images'][0]['width'] == 60
    first = content['annotations'][0]
    assert first['id'] == 1 and first['iscrowd'] == 0 and first['bbox'] == [1, 2, 3, 4] and first['area'] > 0


def test_box_of_a_polygon_or_mask_replaces_a_missing_one(write_files):
    rle = dict(size=[40, 60], counts=[41, 2, 2357])
    entries = [dict(OBJECT, id=i, bbox=None, segmentation=shape) for i, shape in enumerate(([TRIANGLE], rle), start=1)]
    data = read(write_files(coco(*entries)))
    assert [tuple(a.box) for a in only(data).annotations] == [(1, 1, 4, 3), (1, 1, 1, 2)]


def test_category_without_objects_stays_a_class(write_files):
    assert read(write_files(coco(OBJECT))).classes == ['cat', 'dog']


def test_used_category_0_of_roboflow_stays_a_class(write_files):
    categories = [dict(id=0, name='pets', supercategory='none'), dict(id=1, name='cat', supercategory='pets')]
    assert read(write_files(coco(OBJECT, categories=categories))).classes == ['cat']
    files = coco(OBJECT, dict(OBJECT, id=2, category_id=0), categories=categories)
    assert read(write_files(files)).classes == ['pets', 'cat']


def test_images_and_labels_without_partner_are_noted(write_files):
    files = {'data.yaml': YAML, 'images/a.jpg': (60, 40), 'labels/a.txt': '', 'labels/c.txt': '0 .5 .5 .1 .1'}
    notes = read(write_files(files | {'images/b.jpg': (60, 40)})).notes
    assert notes == [
        '1 image without a label file have no object (images/b.jpg).',
        'Not read: 1 label file without an image (labels/c.txt).',
    ]
    notes = read(write_files(coco(OBJECT) | {'b.jpg': (60, 40)}), 'coco').notes
    assert any('Not read: ' in note and 'without annotations' in note and 'b.jpg' in note for note in notes)


def test_coordinates_keep_three_decimals_and_windows_line_ends_are_read(write_files):
    rows = '0 0.5 0.5 0.333333333 0.25\r\n1 0.1 0.1 0.2 0.1 0.2 0.3\r\n\r\n'
    files = {'data.yaml': codecs.BOM_UTF8 + YAML.encode(), 'images/a.jpg': (60, 40), 'labels/a.txt': rows}
    first, second = only(read(write_files(files))).annotations
    assert tuple(first.box) == (20.0, 15.0, 20.0, 10.0)
    assert tuple(second.box) == (6.0, 4.0, 6.0, 8.0) and second.polygons == ((6.0, 4.0, 12.0, 4.0, 12.0, 12.0),)


def test_names_that_yaml_changes_stay_text(write_files):
    files = {'data.yaml': 'train: images\nnames: [no, 1, 007]', 'images/a.jpg': (60, 40), 'labels/a.txt': ''}
    assert read(write_files(files)).classes == ['no', '1', '007']


def test_upper_case_suffixes_spaces_and_other_letters(write_files):
    files = {'data.yaml': YAML, 'images/Bild Ä 1.JPG': (60, 40), 'labels/Bild Ä 1.txt': '0 .5 .5 .5 .5\n'}
    root = write_files(files)
    data = read(root)
    assert only(data).name == 'Bild Ä 1.JPG' and len(only(data).annotations) == 1
    xml = '<annotation><filename>Bild Ä 1.jpg</filename></annotation>'
    assert only(read(write_files({'Bild Ä 1.xml': xml, 'Bild Ä 1.JPG': (60, 40)}), 'voc')).name == 'Bild Ä 1.JPG'


def test_same_name_in_two_folders(write_files, tmp_path):
    files = {'data.yaml': YAML}
    for i, folder in enumerate('xy'):
        files |= {f'images/{folder}/a.jpg': (60, 40), f'labels/{folder}/a.txt': f'{i} .5 .5 .5 .5'}
    data = read(write_files(files))
    assert [(r.name, r.annotations[0].label) for r in data.records()] == [('x/a.jpg', 0), ('y/a.jpg', 1)]
    for target in ('coco', 'yolo', 'voc'):
        write(data, tmp_path / target, target)
        again = read(tmp_path / target)
        assert [(r.name, r.annotations[0].label) for r in again.records()] == [('x/a.jpg', 0), ('y/a.jpg', 1)], target


def test_ambiguous_image_is_an_error_and_the_folder_decides(write_files):
    two = {'x/a.jpg': (60, 40), 'y/a.jpg': (60, 40)}
    files = coco(OBJECT, images=[dict(IMAGE, file_name='z/y/a.jpg')])
    del files['a.jpg']
    root = write_files(files | two)
    assert only(read(root)).file == root / 'y' / 'a.jpg'
    with pytest.raises(ValueError, match=r"2 images match 'z/a\.jpg' \(x/a\.jpg, y/a\.jpg\); keep one"):
        read(write_files({'a.json': files['a.json'].replace('z/y/', 'z/')}))


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp'])
def test_size_is_that_of_the_loaded_image(suffix, write_files):
    """OpenCV, which loads the images for training, applies the orientation in EXIF."""
    root = write_files(coco(OBJECT, images=[dict(IMAGE, file_name=f'b.{suffix}')]))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((60, 40), 60).save(root / f'b.{suffix}', exif=exif)
    data = read(root)
    height, width = cv2.imread(str(root / f'b.{suffix}')).shape[:2]
    assert (only(data).width, only(data).height) == (width, height)
    if width != 60:
        assert 'Width and height are exchanged' in ' '.join(data.notes) and data.places['train'].annotations is None


def test_other_sizes_than_annotated_are_noted(write_files):
    data = read(write_files(coco(OBJECT, images=[dict(IMAGE, width=30)])))
    assert only(data).width == 60 and 'a.jpg is 60x40, not 30x40' in ' '.join(data.notes)


def test_boxes_outside_and_without_area(write_files, tmp_path):
    boxes = ([-5, -5, 20, 20], [50, 30, 20, 20], [5, 5, 0, 3], [70, 5, 3, 3])
    data = read(write_files(coco(*(dict(OBJECT, id=i, bbox=b) for i, b in enumerate(boxes, start=1)))))
    assert [list(a.box) for a in only(data).annotations] == [*boxes]
    written = write(data, tmp_path / 'new', 'yolo')
    assert [tuple(a.box) for a in only(read(tmp_path / 'new')).annotations] == [(0, 0, 15, 15), (50, 30, 10, 10)]
    assert '2 objects left out: their box has no area inside of the image (a.jpg annotation 3' in str(written.lines)
    assert '2 objects changed: parts outside of the image are cut off' in str(written.lines)


def test_polygon_without_area_is_kept(write_files):
    point = [3, 3] * 3
    data = read(write_files(coco(dict(OBJECT, segmentation=[point], bbox=[3, 3, 0, 0]))))
    assert only(data).annotations[0].polygons == ((3, 3) * 3,)


def test_exchanged_corners_of_voc_are_repaired(write_files):
    corners = '<xmin>9</xmin><xmax>4</xmax><ymin>1</ymin><ymax>3</ymax>'
    xml = f'<annotation><object><name>cat</name><bndbox>{corners}</bndbox></object></annotation>'
    data = read(write_files({'a.xml': xml, 'a.jpg': (60, 40)}))
    assert tuple(only(data).annotations[0].box) == (4, 1, 5, 2) and only(data).width == 60
    assert 'corners of their boxes are exchanged' in data.losses.lines()[0]


def test_split_lists_of_voc(write_files):
    files = {f'Annotations/{name}.xml': '<annotation/>' for name in 'abc'}
    files |= {f'JPEGImages/{name}.png': (60, 40) for name in 'abc'}
    lists = {'train': 'a\r\n', 'val': 'b 1\n', 'cat_train': 'a  1\nb -1\n', 'test': 'x\ny\n'}
    data = read(write_files(files | {f'ImageSets/Main/{name}.txt': text for name, text in lists.items()}))
    assert {split: [r.name for r in records] for split, records in data.splits.items()} == {
        'train': ['a.png'],
        'val': ['b.png'],
    }
    notes = ' '.join(data.notes)
    assert 'test.txt lists images without annotations' in notes and '(Annotations/c.xml)' in notes


def test_annotation_file_with_images_elsewhere(write_files, tmp_path):
    root = write_files({'a.json': coco(OBJECT)['a.json']})
    images = write_files({'deep/a.jpg': (60, 40)}, tmp_path / 'photos')
    data = read(root / 'a.json', images=images)
    assert only(data).file == images / 'deep' / 'a.jpg'
