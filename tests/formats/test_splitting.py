"""Splits are stratified, deterministic, and keep near-duplicates together."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mlp_dense.datasets.near_duplicates import near_duplicates, thumbnail
from mlp_dense.errors import UserError
from mlp_dense.formats import Annotation, Box, DataSet, Record, read, split, write
from mlp_dense.formats.labelme import image_bytes
from mlp_dense.formats.sources import SPLITS
from mlp_dense.formats.splitting import assign
from support.formats import DIALECTS, write_as, write_label_maps


def data_set(folder, labels) -> DataSet:
    """Return a data set of noise images with objects of the given classes."""
    records = []
    for i, classes in enumerate(labels):
        pixels = np.random.default_rng(i).integers(0, 255, (24, 32, 3)).astype(np.uint8)
        file = folder / f'{i:03}.png'
        Image.fromarray(pixels).save(file)
        annotations = [Annotation(label, Box(1, 1, 5, 5)) for label in classes]
        records.append(Record(file.name, file, 32, 24, annotations))
    names = [f'class {i}' for i in range(1 + max((label for each in labels for label in each), default=0))]
    return DataSet(folder, 'coco', 'test', names, {'train': records})


def test_every_class_is_split_in_proportion(tmp_path):
    labels = [{i % 2} for i in range(30)] + [{2}] * 3 + [set()] * 7
    data = split(data_set(tmp_path, labels), (0.6, 0.2, 0.2))
    assert {name: len(records) for name, records in data.splits.items()} == dict(train=24, val=8, test=8)
    for records in data.splits.values():
        present = Counter(annotation.label for record in records for annotation in record.annotations)
        assert present[2] == 1 and present[0] == present[1] == len(records) * 3 // 8
        assert [record.name for record in records] == sorted(record.name for record in records)


def test_split_depends_on_the_seed_only(tmp_path):
    data = data_set(tmp_path, [{i % 3} for i in range(20)])
    first, again, other = (split(data, (0.5, 0.5), seed).splits for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(record.name for records in other.values() for record in records) == [f'{i:03}.png' for i in range(20)]
    data.splits = {'a': data.splits['train'][::-1]}
    assert split(data, (0.5, 0.5), 1).splits == first, 'the order of the images does not matter'


@pytest.mark.parametrize('seed', range(5))
def test_rare_classes_reach_every_part_of_genuine_data(shared, seed):
    data = read(shared / 'data' / 'coco_tiny')
    images = Counter(label for record in data.records() for label in {a.label for a in record.annotations})
    splits = split(data, (0.8, 0.1, 0.1), seed).splits
    for records in splits.values():
        present = {annotation.label for record in records for annotation in record.annotations}
        assert not {label for label, number in images.items() if number >= 3} - present
    assert len(splits['train']) > 0.7 * 336 and min(map(len, splits.values())) > 30


def test_classes_with_too_few_images_are_named(tmp_path):
    notes = split(data_set(tmp_path, [{0}] * 8 + [{1}]), (0.5, 0.25, 0.25)).notes
    assert '1 class without an image in val: class 1; add images of them.' in notes


def test_near_duplicates_stay_together(tmp_path):
    data = data_set(tmp_path, [{0}] * 10)
    for i in range(10):  # a second frame of each image, half a grey level brighter and compressed
        pixels = np.kron(np.random.default_rng(i).integers(0, 255, (6, 8)), np.ones((20, 20))).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'{i:03}.png')
        file = tmp_path / f'frame {i}.jpg'
        Image.fromarray(pixels).resize((150, 112)).save(file, quality=80)
        data.splits['train'].append(Record(file.name, file, 150, 112))
    groups = near_duplicates([thumbnail(record.file.read_bytes()) for record in data.splits['train']])
    assert sorted(groups) == [[i, i + 10] for i in range(10)]
    result = split(data, (0.5, 0.5))
    for records in result.splits.values():
        names = {record.name for record in records}
        assert all((f'{i:03}.png' in names) == (f'frame {i}.jpg' in names) for i in range(10))
    assert '20 near-duplicate images in 10 groups stay together' in ' '.join(result.notes)


def test_images_of_several_splits_are_merged(tmp_path):
    data = data_set(tmp_path, [{0}] * 6)
    (tmp_path / 'val').mkdir()
    moved = data.splits['train'].pop()
    data.splits['val'] = [Record('000.png', moved.file.rename(tmp_path / 'val' / '000.png'), 32, 24)]
    result = split(data, (0.5, 0.5))
    names = [record.name for records in result.splits.values() for record in records]
    assert len({*names}) == 6 and 'val/000.png' in names and 'The splits train, val' in ' '.join(result.notes)


@pytest.mark.parametrize('fractions', [(1,), (0.8, 0.3), (1.2, -0.2), (0.25,) * 4])
def test_invalid_fractions_are_errors(fractions, tmp_path):
    with pytest.raises(UserError, match='set two or three positive numbers with the sum 1'):
        split(data_set(tmp_path, [{0}] * 4), fractions)


def test_too_few_images_are_an_error(tmp_path):
    with pytest.raises(UserError, match='2 different images cannot be split into 3; add images'):
        split(data_set(tmp_path, [{0}] * 2), (0.6, 0.2, 0.2))


def test_every_part_has_an_image():
    for number in range(3, 9):
        assert {*assign([set()] * number, [1] * number, (0.98, 0.01, 0.01))} == {0, 1, 2}


CONVERSIONS = [(dialect, to) for dialect in DIALECTS for to in ('coco', 'yolo', 'voc')]


def images_of(data: DataSet) -> dict[str, list[bytes]]:
    return {
        name: sorted(image_bytes(record.file) if record.embedded else record.file.read_bytes() for record in records)
        for name, records in data.splits.items()
    }


@pytest.mark.parametrize(
    ('source', 'to'), [*CONVERSIONS, *((kind, 'labels') for kind in ('index', 'palette', 'rgb', 'sixteen', 'masks'))]
)
def test_written_split_is_read_again(samples, tmp_path, source, to):
    """The splits of the source leave no trace, although its folders or lists name them."""
    if to == 'labels':
        labels = {
            name: [(each.file, np.uint8(np.indices((each.height, each.width))[1] % 3)) for each in members]
            for name, members in samples.items()
        }
        write_label_maps(source, tmp_path / 'old', labels, dict(a=(9, 9, 9), b=(0, 255, 0), c=(7, 0, 200)))
    else:
        write_as(source, tmp_path / 'old', samples)
    data = split(read(tmp_path / 'old'), (0.4, 0.3, 0.3))
    write(data, tmp_path / 'new', to)
    assert images_of(read(tmp_path / 'new')) == images_of(data)
    for file in (tmp_path / 'new').rglob('*'):
        assert sum(folder in SPLITS for folder in file.relative_to(tmp_path / 'new').parts[:-1]) < 2, file


@pytest.mark.parametrize('to', ['coco', 'yolo', 'voc'])
def test_images_of_one_name_get_the_names_of_their_folders(tmp_path, to):
    for i, name in enumerate(('train/images/a', 'valid/images/a', 'valid/images/b', 'test/images/sub/c')):
        (tmp_path / 'old' / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (24, 32, 3), np.uint8)).save(
            tmp_path / 'old' / f'{name}.png'
        )
        labels = tmp_path / 'old' / name.replace('images', 'labels')
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.with_suffix('.txt').write_text('0 0.5 0.5 0.2 0.2\n')
    (tmp_path / 'old' / 'data.yaml').write_text('train: train/images\nval: valid/images\ntest: test/images\nnames: [x]')
    data = split(read(tmp_path / 'old'), (0.5, 0.5))
    lines = write(data, tmp_path / 'new', to).lines
    assert images_of(read(tmp_path / 'new')) == images_of(data)
    names = {file.name for file in (tmp_path / 'new').rglob('*.png')}
    assert names == {'train_images_a.png', 'valid_images_a.png', 'b.png', 'c.png'}
    assert any(line.startswith('2 images renamed: images of one name get the names of their folders') for line in lines)


def test_innermost_folder_names_the_split(tmp_path):
    for path in ('train/val/a', 'val/train/b', 'training_set/val/c'):
        for kind in ('images', 'masks'):
            file = tmp_path / kind / f'{path}.png'
            file.parent.mkdir(parents=True)
            Image.fromarray(np.uint8(np.eye(8))).save(file)
    splits = read(tmp_path).splits
    assert {name: sorted(record.file.name for record in records) for name, records in splits.items()} == {
        'train': ['b.png'],
        'val': ['a.png', 'c.png'],
    }
