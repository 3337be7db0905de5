"""The data of a config or a folder are examined: findings as text and JSON, exit status, sizes of objects."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope

from mlp_dense.checks import data_check
from mlp_dense.checks.data_config import check_built
from mlp_dense.checks.examination import Examination, examine
from mlp_dense.checks.findings import STOPS, Finding, exit_status, merged, table, to_json
from mlp_dense.checks.folder_data import datasets_in
from mlp_dense.checks.object_sizes import histogram, scaled_sides, vanishing
from mlp_dense.config.new_config import Choices, new_config
from mlp_dense.datasets.shapes import write_shapes
from mlp_dense.errors import UserError
from support.configs import DETECTION, SEGMENTATION


def test_findings_are_merged_and_sorted():
    rows = merged(
        [
            Finding('note', 'val', 'images are black', 2, ('a', 'b')),
            Finding('warning', 'val', 'images are white', 3, ('a', 'b', 'c'), 'paint them'),
            Finding('note', 'val', 'images are black', 2, ('c', 'd')),
            Finding('error', 'train', STOPS, 1, ('x.jpg is broken; fix it.',)),
        ]
    )
    assert [row.severity for row in rows] == ['error', 'warning', 'note']
    assert (rows[2].count, rows[2].examples) == (4, ('a', 'b', 'c'))
    assert table(rows[1:]) == (
        'warning val        3  images are white: a, b, c\n                      -> paint them\n'
        'note    val        4  images are black: a, b, c and 1 more'
    )
    assert rows[0].sentence() == 'x.jpg is broken; fix it.'
    assert rows[1].sentence() == 'The val data: images are white: 3, for example a; paint them.'
    assert [exit_status(rows[i:]) for i in range(4)] == [2, 1, 0, 0]
    content = json.loads(to_json(rows, source='x'))
    assert content['source'] == 'x' and content['status'] == 2 and content['findings'][1]['remedy'] == 'paint them'


def test_sizes_of_objects_are_those_of_the_resized_images():
    sizes = [(20, 20, 200, 100), (20, 20, 100, 400), (3, 3, 0, 0)]
    sides = scaled_sides(sizes, (400, 100))
    assert sides.tolist() == [20, 20, 3] and scaled_sides(sizes, None).tolist() == [20, 20, 3]
    assert scaled_sides(sizes, (800, 200))[:2].tolist() == [40, 40]
    assert histogram(sides, [4, 8, 32]) == {'below 4': 1, '4 to 8': 0, '8 to 32': 2, 'from 32': 0}
    (finding,) = vanishing('train', sides, [4, 8])
    assert finding.severity == 'warning' and finding.count == 1
    assert [row.severity for row in vanishing('train', np.full(200, 9), [4, 8])] == []


def severities(result: Examination) -> dict[str, str]:
    return {finding.problem: finding.severity for finding in result.findings}


@pytest.mark.parametrize('base', [DETECTION, SEGMENTATION], ids=['detection', 'segmentation'])
def test_config_is_examined(base, data):
    result = examine(Path(base), data_root=data)
    assert result.images == {'train': 8, 'val': 4} and result.status < 2
    if base == DETECTION:
        assert sum(result.sizes['train'].values()) > 8 and 'Objects of the train data' in result.text()
        (data / 'annotations' / 'instances_val.json').write_text('[')
        result = examine(Path(base), data_root=data)
        assert result.status == 2 and 'instances_val.json is not a complete JSON file' in result.text()
    assert json.loads(result.json())['status'] == result.status


def test_processes_share_the_images(data, monkeypatch):
    """The findings of two processes, gathered, are those of one."""
    for file in sorted((data / 'train').iterdir())[3:5]:
        file.write_bytes(b'')
    init_default_scope('mmdet')
    built = [(name, DATASETS.build(config)) for name, config in datasets_in(data, data / 'converted')[0]]
    for _, dataset in built:
        check_built(dataset)
    expected, _ = data_check.inspect(built)
    parts: list = []  # of the second process, then of the first

    def gather(part):
        parts.append(part)
        return parts[::-1]

    monkeypatch.setattr(data_check, 'get_world_size', lambda: 2)
    monkeypatch.setattr(data_check, 'all_gather_object', gather)
    for rank in (1, 0):
        monkeypatch.setattr(data_check, 'get_rank', lambda rank=rank: rank)
        monkeypatch.setattr(data_check, 'is_main_process', lambda rank=rank: rank == 0)
        gathered, contents = data_check.inspect(built)
        assert len(contents) == (2 if rank == 0 else 0)
    assert {(f.problem, f.count) for f in gathered} == {(f.problem, f.count) for f in expected}
    assert ('images or label maps cannot be read, and will be skipped', 2) in {(f.problem, f.count) for f in expected}


@pytest.mark.parametrize(
    ('removed', 'found', 'line'),
    [
        ('labels', 'COCO annotations: annotations/instances_train.json, annotations/instances_val.json.',
         r'train: 5 classes, objects: (\w+ \d+(, )?){5}'),
        ('annotations', 'Label maps (indices) in labels.', r'val: \d classes, pixels: class 0 \d+\.\d\d%, .*'),
    ],
)  # fmt: skip
def test_format_and_classes_of_good_data_are_printed(data, removed, found, line):
    shutil.rmtree(data / removed)
    result = examine(data)
    lines = result.text().splitlines()
    assert lines[1] == found and any(re.fullmatch(line, each) for each in lines[2:4])
    content = json.loads(result.json())
    assert content['found'] == found and {*content['classes']} == {'train', 'val'}
    (amounts,) = result.classes['train'].values()
    assert sum(amounts.values()) == (sum(result.sizes['train'].values()) if removed == 'labels' else 8 * 96 * 96)


@pytest.mark.parametrize('format', ['labels', 'yolo'])
def test_labels_without_an_image_are_a_warning(write_files, format):
    files: dict = {f'images/{name}.jpg': (40 + ord(name), 90) for name in 'ab'}
    if format == 'yolo':
        files |= {'classes.txt': 'x\n'} | {f'labels/{name}.txt': '0 .5 .5 .5 .5' for name in 'abc'}
    root = write_files(files)
    for name in 'abc' if format == 'labels' else '':
        labels = np.indices((90, 40 + ord(name)))[0] % 2
        (root / 'masks').mkdir(exist_ok=True)
        cv2.imwrite(str(root / 'masks' / f'{name}.png'), np.uint8(labels))
    result = examine(root)
    (finding,) = (finding for finding in result.findings if ' without an image ' in finding.problem)
    assert finding.severity == 'warning' and '/c.' in finding.problem and result.status == 1


def test_copied_image_is_found(data):
    files = sorted((data / 'train').iterdir())
    shutil.copy(files[0], min((data / 'val').iterdir()))
    problems = severities(examine(Path(SEGMENTATION), data_root=data))
    assert problems['images are copies of images in the training data: the metrics will be too good'] == 'warning'


def test_folder_with_annotations_is_examined(data):
    shutil.rmtree(data / 'labels')
    (data / '__MACOSX').mkdir()
    result = examine(data)
    assert result.images == {'train': 8, 'val': 4} and not any('missing' in problem for problem in severities(result))
    assert severities(result)['system folders are ignored'] == 'note'
    (data / 'annotations' / 'instances_val.json').write_text(json.dumps(dict(shapes=[], imagePath='a.jpg')))
    result = examine(data)
    assert result.status == 2 and 'has annotations in several formats: coco (' in result.text()
    assert 'has the format of LabelMe, not of COCO instances' in examine(data, format='coco').text()


def test_folder_with_label_maps_is_examined(data):
    shutil.rmtree(data / 'annotations')
    result = examine(data)
    assert result.images == {'train': 8, 'val': 4} and result.status < 2
    for file in data.glob('labels/*/*.png'):
        cv2.imwrite(str(file), (cv2.imread(str(file), cv2.IMREAD_UNCHANGED) > 1) * np.uint8(255))
    result = examine(data)
    assert result.status < 2 and 'the values 0, read as "background", and 255, read as "object"' in result.text()
    (data / 'classes.txt').write_text('background\nshape\n')
    assert 'the value 255' not in (text := examine(data).text()) and 'shape' in text


def test_coloured_label_maps_and_class_masks_of_a_folder_are_examined(data):
    shutil.rmtree(data / 'annotations')
    colours = np.array([(0, 0, 0), (0, 0, 255), (0, 255, 0), (255, 0, 0), (255, 255, 0), (9, 9, 9)], np.uint8)
    for file in data.glob('labels/*/*.png'):
        cv2.imwrite(str(file), colours[np.minimum(cv2.imread(str(file), cv2.IMREAD_UNCHANGED), 5)])
    result = examine(data)
    assert result.status == 2 and 'no table of their classes' in result.text()
    names = ['ground', 'red', 'green', 'blue', 'cyan', 'other']
    rows = [f'{name} {" ".join(map(str, colour[::-1]))}' for name, colour in zip(names, colours, strict=True)]
    (data / 'table.txt').write_text('\n'.join([*rows, 'unused 1 2 3']))
    result = examine(data, colors=data / 'table.txt')
    assert result.images == {'train': 8, 'val': 4} and result.status == 1
    assert 'classes occur in no label map (all): ' in result.text() and 'unused' in result.text()
    with pytest.raises(UserError, match='is a config; omit --colors and --format'):
        examine(Path(SEGMENTATION), colors=data / 'table.txt')


def test_folder_of_classes_is_examined(tmp_path):
    pytest.importorskip('timm')
    write_shapes(tmp_path / 'data', num_train=5, num_val=5, size=32, classify=True)
    min((tmp_path / 'data' / 'train' / 'star').iterdir()).write_text('')
    result = examine(tmp_path / 'data')
    assert result.images == {'train': 5, 'val': 5}
    assert 'images or label maps cannot be read, and will be skipped' in severities(result)


def test_unknown_folder_is_refused(tmp_path):
    (tmp_path / 'notes.json').write_text('{"a": 1}')
    result = examine(tmp_path)
    assert result.status == 2 and 'has no annotations in a known format (coco: ' in result.text()


@pytest.mark.parametrize('folder', ['images/train', 'train/images'])
def test_yaml_without_names_is_named_by_all_commands(write_files, folder, tmp_path):
    labels = f'{folder.replace("images", "labels")}/a.txt'
    root = write_files({'data.yaml': f'train: {folder}\nname: [a]', f'{folder}/a.jpg': (8, 8), labels: '0 .5 .5 .1 .1'})
    message = f'{root / "data.yaml"} has no key "names"; add "names: [...]" with the names of all classes.'
    result = examine(root)
    assert result.status == 2 and message in result.text()
    with pytest.raises(UserError, match=re.escape(message)):
        new_config(root, tmp_path / 'new', Choices('mlp-dense new'))


@pytest.mark.parametrize('part', ['', 'train', 'train/images'])
def test_part_of_the_data_is_refused(write_files, part):
    files = {'train/images/a.jpg': (8, 8), 'train/labels/a.txt': '0 .5 .5 .9 .9'}
    root = write_files({'data.yaml': 'train: train/images\nnames: [a]', **files})
    result = examine(root / part)
    assert ('set the folder that contains both images and annotations' in result.text()) == bool(part)
    assert (result.status == 2) == bool(part)


def test_changes_of_a_config_are_refused_for_a_folder(tmp_path):
    for changes in (dict(options=['a=1']), dict(data_root=tmp_path)):
        with pytest.raises(UserError, match='is a folder; omit --data-root and --cfg-options'):
            examine(tmp_path, **changes)


def test_folders_name_splits_by_words(data):
    """A folder `latest` has no test data, and `trainannot` has label maps of train."""
    shutil.rmtree(data / 'annotations')
    for split in ('train', 'val'):
        (data / 'labels' / split).rename(data / f'{split}annot')
    assert [name for name, _ in datasets_in(data, data / 'converted')[0]] == ['train', 'val']
    (data / 'val').rename(data / 'latest')
    datasets, _, notes = datasets_in(data, data / 'converted')
    assert [name for name, _ in datasets] == ['train'] and 'Not read: 4 images without a label map' in ' '.join(notes)
