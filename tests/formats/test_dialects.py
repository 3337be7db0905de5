"""Equal annotations in the layouts of all tools give equal data sets."""

from pathlib import Path

import pytest
from mmengine.registry import DATASETS, init_default_scope

from mlp_dense.formats import counts, detect, places_of, read, write
from support.formats import DIALECTS, WITHOUT_POLYGONS, box, genuine_set, write_as

NAMES = ('disc', 'square', 'star')
FORMAT = {
    **dict.fromkeys(('coco', 'roboflow', 'cvat_coco', 'label_studio'), 'coco'),
    **dict.fromkeys(('yolo', 'yolo_boxes'), 'yolo'),
    **dict.fromkeys(('labelme', 'labelme_embedded'), 'labelme'),
}


def content(data, polygons=True):
    return {
        split: [
            (record.name, record.width, record.height, [(a.label, a.box, a.polygons * polygons) for a in
             record.annotations])
            for record in records
        ]
        for split, records in data.splits.items()
    }  # fmt: skip


def expected(splits, polygons=True):
    return {
        split: [
            (
                sample.file.name,
                sample.width,
                sample.height,
                [(label, (*box(points),), ((*points,),) * polygons) for label, points in sample.objects],
            )
            for sample in sorted(samples, key=lambda each: each.file.name)
        ]
        for split, samples in splits.items()
    }


@pytest.mark.parametrize('dialect', DIALECTS)
def test_dialect_is_read_to_the_last_bit(dialect, samples, tmp_path):
    root = write_as(dialect, tmp_path / 'data', samples, NAMES)
    data = read(root)
    assert detect(root) == data.format == FORMAT.get(dialect, dialect)
    assert data.classes == [*NAMES]
    polygons = dialect not in WITHOUT_POLYGONS
    assert content(data) == expected(samples, polygons)
    assert list(data.splits) == ['train', 'val'] and not data.losses.lines()


def test_genuine_images_are_equal_in_every_dialect(shared, tmp_path):
    splits = genuine_set(shared, 8, 4)
    for dialect in DIALECTS:
        data = read(write_as(dialect, tmp_path / dialect, splits))
        assert content(data) == expected(splits, dialect not in WITHOUT_POLYGONS), dialect


@pytest.mark.parametrize('dialect', ['coco', 'roboflow', 'cvat_coco'])
def test_regular_annotation_files_are_used_in_place(dialect, samples, tmp_path):
    data = read(write_as(dialect, tmp_path / 'data', samples, NAMES))
    written = places_of(data, tmp_path / 'new')
    assert written.places == data.places and not (tmp_path / 'new').exists()
    for split, place in data.places.items():
        assert place.annotations.is_file()
        assert all((place.images / sample.file.name).is_file() for sample in samples[split])


@pytest.mark.parametrize('dialect', ['label_studio', 'yolo', 'voc', 'labelme', 'cvat'])
def test_other_dialects_get_annotation_files_for_images_that_stay(dialect, samples, tmp_path):
    data = read(write_as(dialect, tmp_path / 'data', samples, NAMES))
    places = places_of(data, tmp_path / 'new').places
    assert not list((tmp_path / 'new').rglob('*.jpg'))
    again = read(tmp_path / 'new')
    assert again.places == places and content(again) == content(data) and counts(again) == counts(data)


@pytest.mark.parametrize('target', ['coco', 'yolo', 'voc'])
@pytest.mark.parametrize('dialect', ['coco', 'yolo', 'voc', 'labelme_embedded'])
def test_conversion_keeps_boxes_and_polygons(dialect, target, samples, tmp_path):
    data = read(write_as(dialect, tmp_path / 'data', samples, NAMES))
    written = write(data, tmp_path / 'new', target)
    again = read(tmp_path / 'new')
    assert again.format == target and again.classes == data.classes
    assert content(again, target != 'voc') == content(data, target != 'voc')
    assert f'objects: {counts(data)["objects"]} -> {counts(data)["objects"]}' in written.lines


def test_mmdet_loads_equal_annotations_from_every_dialect(samples, tmp_path):
    init_default_scope('mmdet')
    loaded = {}
    for dialect in DIALECTS:
        if dialect in WITHOUT_POLYGONS:
            continue
        places = places_of(
            read(write_as(dialect, tmp_path / dialect, samples, NAMES)), tmp_path / f'new {dialect}'
        ).places
        dataset = DATASETS.build(
            dict(
                type='CocoDataset',
                metainfo=dict(classes=NAMES),
                ann_file=str(places['train'].annotations),
                data_prefix=dict(img=str(places['train'].images)),
                pipeline=[],
            )
        )
        items = [dataset.get_data_info(i) for i in range(len(dataset))]
        assert all(Path(item['img_path']).is_file() for item in items)
        loaded[dialect] = [(item['height'], item['width'], item['instances']) for item in items]
    assert len(loaded['coco']) == len(samples['train'])
    assert all(items == loaded['coco'] for items in loaded.values())
