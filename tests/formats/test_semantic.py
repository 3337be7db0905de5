"""Label maps of every kind become equal indices."""

import re

import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from mlp_dense.errors import UserError
from mlp_dense.formats import label_map, places_of, read, split, write
from mlp_dense.formats.tables import read_table
from support.formats import write_label_maps

TABLE = dict(road=(128, 64, 128), tree=(107, 142, 35), car=(0, 0, 142))
KINDS = ('index', 'palette', 'rgb', 'sixteen', 'masks')


@pytest.fixture
def maps(samples):
    """Images with label maps of three classes and ignored pixels."""
    random = np.random.default_rng(0)
    return {
        name: [
            (p.file, np.array([0, 1, 2, 255], np.uint8)[random.integers(0, 4, (p.height, p.width))])
            for p in samples[name]
        ]
        for name in ('train', 'val')
    }


def check_equal(data, maps):
    for name, records in data.splits.items():
        expected = sorted(maps[name], key=lambda pair: pair[0].name)
        for record, (file, labels) in zip(records, expected, strict=True):
            assert record.name == file.name and np.array_equal(label_map(record, data), labels)


@pytest.mark.parametrize('kind', KINDS)
def test_kind_is_read_and_written_as_indices(kind, maps, tmp_path):
    data = read(write_label_maps(kind, tmp_path / 'data', maps, TABLE))
    assert data.format == 'labels' and data.classes == [*TABLE]
    check_equal(data, maps)
    lines = write(data, tmp_path / 'new', 'labels').lines
    check_equal(read(tmp_path / 'new'), maps)
    total = sum((labels == 1).sum() for pairs in maps.values() for _, labels in pairs)
    assert f'pixels of tree: {total} -> {total}' in lines


@pytest.mark.parametrize('kind', KINDS)
def test_places_are_read_by_mmsegmentation(kind, maps, tmp_path):
    root = write_label_maps(kind, tmp_path / 'data', maps, TABLE)
    written = places_of(read(root), tmp_path / 'new')
    assert (tmp_path / 'new').exists() == (kind not in ('index', 'palette'))
    init_default_scope('mmseg')
    for name, place in written.places.items():
        assert place.images == root / 'images' / name
        dataset = DATASETS.build(
            dict(
                type='BaseSegDataset',
                metainfo=dict(classes=[*TABLE], palette=[*TABLE.values()]),
                data_prefix=dict(img_path=str(place.images), seg_map_path=str(place.annotations)),
                img_suffix=place.suffixes[0],
                seg_map_suffix=place.suffixes[1],
                pipeline=[dict(type='LoadAnnotations')],
            )
        )
        assert len(dataset) == len(maps[name])
        for item, (_, labels) in zip(dataset, sorted(maps[name], key=lambda pair: pair[0].name), strict=True):
            assert np.array_equal(item['gt_seg_map'], labels)


def test_genuine_maps_of_camvid_are_equal_in_every_kind(shared, tmp_path):
    folder = shared / 'data' / 'camvid'
    names = ['sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence', 'car', 'pedestrian', 'bicyclist']
    values = dict(zip([*names, 'ignored'], range(12), strict=True))
    original = read(folder, colors=values)
    assert [*map(len, original.splits.values())] == [367, 101, 233]
    records = original.splits['val'][:3]
    few = {'val': [(record.file, label_map(record, original)) for record in records]}
    table = {name: (20 * i, 255 - 20 * i, 7) for i, name in enumerate(names)}
    for kind in KINDS:
        data = read(write_label_maps(kind, tmp_path / kind, few, table))
        assert data.classes == names
        for record, (_, labels) in zip(data.records(), few['val'], strict=True):
            assert np.array_equal(label_map(record, data), labels), kind
    with pytest.raises(
        UserError, match=r'annot/.*\.png: the value 11 \(\d+ pixels in all label maps\) belongs to no class'
    ):
        read(folder, colors={name: values[name] for name in names})


def masks(write_files, layout: dict[str, np.ndarray], **texts: str):
    """Write images of 4x3 pixels and label maps by path."""
    root = write_files({name.replace('__', '.'): text for name, text in texts.items()})
    for name, pixels in layout.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / name)
    return root


PHOTO, ZERO = np.zeros((3, 4, 3), np.uint8), np.zeros((3, 4), np.uint8)
HALF = np.repeat(np.array([[0, 0, 1, 1]], np.uint8), 3, axis=0)


@pytest.mark.parametrize(
    ('image', 'label'),
    [
        ('train/a.jpg', 'trainannot/a.png'),
        ('images/training/a.jpg', 'annotations/training/a.png'),
        ('train/images/a.jpg', 'train/masks/a.png'),
        ('train_images/a.jpg', 'train_labels/a.png'),
        ('img/a.jpg', 'gt/a.png'),
        ('train/a.jpg', 'train/a_mask.png'),
        ('images/a.jpg', 'labels/a_L.png'),
        ('JPEGImages/a.jpg', 'SegmentationClass/a.png'),
        ('train/city/a.JPG', 'labels/train/city/a.png'),
    ],
)
def test_layout_is_recognized(image, label, write_files):
    data = read(masks(write_files, {image: PHOTO, label: HALF, 'SegmentationObject/a.png': ZERO}))
    (record,) = data.records()
    assert np.array_equal(label_map(record, data), HALF) and list(data.splits) == ['train']


@pytest.mark.parametrize('folder', [True, False])
def test_masks_of_classes_in_folders_or_suffixes(folder, write_files):
    names = ('masks/{}/a.png' if folder else 'masks/a_{}.png').format
    layout = {'images/a.jpg': PHOTO, names('cat'): HALF * 255, names('dog'): (HALF[:, ::-1] * [[0, 1, 1, 0]]) * 255}
    layout[names('dog')] = layout[names('dog')].astype(np.uint8)
    data = read(masks(write_files, layout))
    (record,) = data.records()
    assert data.classes == ['background', 'cat', 'dog']
    assert label_map(record, data)[0].tolist() == [0, 2, 1, 1]
    layout[names('dog')] = np.full((3, 4), 255, np.uint8)
    data = read(masks(write_files, layout))
    assert data.classes == ['cat', 'dog'] and 'Masks overlap in 1 image (a.jpg)' in ' '.join(data.notes)
    layout[names('dog')] = HALF + 3
    with pytest.raises(UserError, match=r"has 2 values, but is the mask of 'dog'; save 0 and 255"):
        read(masks(write_files, layout))


@pytest.mark.parametrize('high', [255, 128])
def test_masks_of_two_values(high, write_files):
    data = read(masks(write_files, {'images/a.jpg': PHOTO, 'masks/a.png': HALF * np.uint8(high)}))
    assert data.classes == ['background', 'object'] and f'{high}, read as "object"' in ' '.join(data.notes)
    (record,) = data.records()
    assert np.array_equal(label_map(record, data), HALF) and not data.places


def test_three_equal_channels_are_indices(write_files):
    data = read(masks(write_files, {'images/a.jpg': PHOTO, 'masks/a.png': np.stack([HALF] * 3, 2)}))
    assert data.classes == ['class 0', 'class 1'] and not data.places
    (record,) = data.records()
    assert np.array_equal(label_map(record, data), HALF)


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        ('_classes__csv', 'Pixel Value, Class\n0, sky\n1, big tree\n'),
        ('classes__txt', 'sky\nbig tree\n'),
        ('labels__txt', '0 sky\r\n1: big tree\r\n'),
        ('codes__txt', '\ufeffsky\nbig tree'),
    ],
)
def test_names_are_found(name, text, write_files):
    data = read(masks(write_files, {'images/a.jpg': PHOTO, 'masks/a.png': HALF}, **{name: text}))
    assert data.classes == ['sky', 'big tree'] and data.values[1] == 1


COLOURED = np.array([(10, 20, 30), (40, 50, 60)], np.uint8)[HALF]


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        ('labelmap__txt', '# label:color_rgb:parts:actions\nbackground:0,0,0::\nsky:10,20,30::\nbig tree:40,50,60::\n'),
        ('class_dict__csv', 'name,r,g,b\nsky,10,20,30\nbig tree,40,50,60\n'),
        ('label_colors__txt', '10 20 30\tsky\n40 50 60\tbig tree\n'),
    ],
)
def test_colours_are_found(name, text, write_files):
    data = read(masks(write_files, {'images/a.jpg': PHOTO, 'masks/a.png': COLOURED}, **{name: text}))
    (record,) = data.records()
    assert [data.classes[i] for i in label_map(record, data)[0]] == ['sky', 'sky', 'big tree', 'big tree']


def test_colours_can_be_set(write_files, tmp_path):
    root = masks(write_files, {'images/a.jpg': PHOTO, 'masks/a.png': COLOURED})
    file = tmp_path / 'table.json'
    file.write_text('{"sky": [10, 20, 30], "ignored": [40, 50, 60]}')
    for colors in (file, str(file), dict(sky=(10, 20, 30), ignored=[40, 50, 60])):
        data = read(root, colors=colors)
        (record,) = data.records()
        assert data.classes == ['sky'] and label_map(record, data)[0].tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize(
    ('pixels', 'colors', 'message'),
    [
        (COLOURED, None, 'has label maps with 2 colours ((10, 20, 30), (40, 50, 60)), but no table of their classes'),
        (COLOURED, dict(sky=(10, 20, 30)),
         'the colour (40, 50, 60) (6 pixels in all label maps) belongs to no class; add it to colors, with the name'),
        (HALF.astype(np.uint16) * 259, dict(sky=0), 'the value 259 (6 pixels in all label maps) belongs to no class'),
        (HALF.astype(np.uint16) * 3 + np.uint16(256), None, 'with 2 values up to 259, but no table of their classes'),
        (HALF * np.uint8(100) + np.uint8(1), None, 'with 2 values up to 101, but no table'),
        (np.zeros((4, 3), np.uint8), None, 'masks/a.png is 3x4, but its image'),
        (HALF.astype(np.float32) / 2, None, 'contains 0.5; save label maps as integers'),
        (HALF, dict(a=1, b=1), "colors: the classes 'a' and 'b' both have 1; change one"),
        (HALF, dict(a=1, b=(1, 2, 3)), 'colors has classes with and without colours'),
        (HALF, dict(a='red'), "the class 'a' has 'red'; set a value or red, green and blue"),
        (HALF, {}, 'colors lists no class'),
    ],
)  # fmt: skip
def test_unusable_values_are_errors(pixels, colors, message, write_files):
    suffix = 'tif' if pixels.dtype == np.float32 else 'png'
    root = masks(write_files, {'images/a.jpg': PHOTO, f'masks/a.{suffix}': pixels})
    with pytest.raises(UserError, match=re.escape(message)):
        read(root, colors=colors)


@pytest.mark.parametrize('rows', ['sky:10,20,30::\nbig tree:40,50,60:a,b:c', '# label:color_rgb\nsky:10, 20, 30::'])
def test_rows_of_cvat_are_read_from_any_file(write_files, rows):
    file = write_files({'my colours.txt': rows + '\nignored:0,0,0::\n'}) / 'my colours.txt'
    classes = dict(read_table(file))
    assert classes.pop('big tree', (40, 50, 60)) == (40, 50, 60)
    assert classes == dict(sky=(10, 20, 30), ignored=(0, 0, 0))


def test_table_without_colours_is_named_with_its_first_class(write_files, tmp_path):
    root = masks(write_files, {'images/a.jpg': PHOTO, 'masks/a.png': COLOURED})
    (tmp_path / 'mine.txt').write_text('# classes\nsky=#0a141e\ntree=#28323c\n')
    message = r"2 colours \(.*\), but .*mine\.txt has no colour for 'sky=#0a141e'; write \"name red green blue\""
    with pytest.raises(UserError, match=message):
        read(root, colors=tmp_path / 'mine.txt')
    with pytest.raises(UserError, match=r'no\.txt is not a file; pass --colors'):
        read(root, colors=tmp_path / 'no.txt')


def test_colours_of_jpeg_are_explained(write_files):
    noise = np.random.default_rng(0).integers(0, 255, (3, 4, 3)).astype(np.uint8)
    root = masks(write_files, {'images/a.png': PHOTO, 'masks/a.jpg': noise})
    for colors in (dict(sky=(10, 20, 30)), None):
        message = r'masks/a\.jpg: the label maps are JPEG .*: they have 1\d colours; export them again as PNG\.$'
        with pytest.raises(UserError, match=message):
            read(root, colors=colors)


def test_sixteen_bits_do_not_wrap(write_files):
    for suffix in ('png', 'tif'):
        layout = {'images/a.jpg': PHOTO, f'masks/a.{suffix}': HALF.astype(np.uint16) * 259}
        data = read(masks(write_files, layout), colors=dict(sky=0, tree=3, car=259))
        assert data.classes == ['sky', 'tree', 'car'] and '1 class without a pixel: tree.' in data.notes
        (record,) = data.records()
        assert label_map(record, data)[0].tolist() == [0, 0, 2, 2]
        (data.root / f'masks/a.{suffix}').unlink()


def test_images_of_several_suffixes_are_linked_under_one(write_files, tmp_path):
    layout = {'images/a.jpg': PHOTO, 'images/b.jpg': PHOTO, 'images/c.png': PHOTO}
    layout |= {f'masks/{name}.png': HALF for name in 'abc'}
    data = read(masks(write_files, layout))
    assert not data.places
    written = places_of(data, tmp_path / 'new')
    assert written.places['train'].suffixes == ('.jpg', '.png')
    assert (tmp_path / 'new' / 'train' / 'c.jpg').read_bytes() == (data.root / 'images' / 'c.png').read_bytes()
    assert '1 image renamed: mmsegmentation reads one suffix' in written.lines[-1]


def test_partners_are_noted(write_files):
    layout = {'images/a.jpg': PHOTO, 'images/b.jpg': PHOTO, 'masks/a.png': HALF, 'masks/c.png': HALF}
    notes = ' '.join(read(masks(write_files, layout)).notes)
    assert 'Not read: 1 label map without an image (masks/c.png).' in notes
    assert 'Not read: 1 image without a label map (images/b.jpg).' in notes
    with pytest.raises(UserError, match=r'masks/a\.png and masks/a\.tif are both label maps of images/a\.jpg'):
        read(masks(write_files, {'masks/a.tif': HALF}))


def test_label_maps_are_split_by_their_pixels(write_files):
    layout = {}
    for i in range(12):
        noise = np.random.default_rng(i).integers(0, 255, (30, 40, 3)).astype(np.uint8)
        layout |= {f'images/{i}.png': noise, f'masks/{i}.png': np.full((30, 40), i % 2, np.uint8)}
    data = split(read(masks(write_files, layout)), (0.5, 0.5))
    for records in data.splits.values():
        assert sorted(int(label_map(record, data)[0, 0]) for record in records) == [0, 0, 0, 1, 1, 1]
