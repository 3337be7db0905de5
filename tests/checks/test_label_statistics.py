"""Label maps without a class, with ignored pixels, of 0 and 255 or of many bits, and images with other suffixes."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from mlp_dense.checks.data_config import check_label_map
from mlp_dense.checks.label_statistics import count_labels, has_lossy_labels, label_findings
from mlp_dense.errors import UserError
from mlp_dense.training.label_maps import MapLabels
from support.configs import SEGMENTATION

BINARY = {'model.decode_head.num_classes': 2, 'model.auxiliary_head.num_classes': 2}
for name in ('train', 'val', 'test'):
    classes = dict(classes=('a', 'b'), palette=[[0, 0, 0], [9, 9, 9]])
    BINARY |= {f'{name}_dataloader.dataset.metainfo': classes, f'{name}_dataloader.dataset.reduce_zero_label': False}


def rewrite(data, change, suffix: str = '.png') -> None:
    for file in sorted(data.glob('labels/*/*')):
        labels = change(cv2.imread(str(file), cv2.IMREAD_UNCHANGED))
        file.unlink()
        cv2.imwrite(str(file.with_suffix(suffix)), labels)


def findings(labels: list, classes: str = 'abc', maps: int = 1, total: int = 1, **options) -> list[str]:
    counts = count_labels(np.array(labels, np.uint8), options.pop('ignored', 255))
    rows = label_findings('train', list(classes), counts, maps, total, options.pop('reduced', False))
    return [f'{row.severity}: {row.problem}' for row in rows]


def test_findings_of_labels():
    assert findings([0, 1, 2, 255]) == []
    assert findings([0, 1, 255]) == ['warning: classes occur in no label map (all)']
    assert findings([0, 1], maps=5, total=9) == ['note: classes occur in no label map (the 5 checked)']
    assert findings([0, 1, 2, 255, 255, 255, 255]) == ['warning: label maps: 57% of their pixels are ignored (all)']
    assert findings([0, 1, 2, 3, 3, 3, 3], ignored=3) == ['warning: label maps: 57% of their pixels are ignored (all)']
    assert findings([255, 255]) == ['error: label maps have ignored pixels only (all)']
    assert findings([0, 255, 0])[0].startswith('error: label maps contain 0 and 255 only, but 255 is ignored')
    assert findings([0, 255, 0], 'a') == [] and findings([]) == []


@pytest.mark.parametrize(
    ('name', 'labels', 'message'),
    [
        ('a.tif', np.array([[259, 1]], np.uint16), 'has 16 bits per pixel, among them 259, but 8 bits are loaded'),
        ('a.png', np.array([[259, 1]], np.uint16), 'has 16 bits per pixel, among them 259'),
        ('a.tif', np.array([[1.5, 1]], np.float32), 'contains floats, among them 1.5'),
        ('a.tif', np.array([[-1, 1]], np.float32), 'contains floats, among them -1.0'),
        ('a.tif', np.array([[1, 70000]], np.int32), 'has 32 bits per pixel, among them 70000'),
        ('a.tif', np.array([[2, 1]], np.uint16), None),
        ('a.png', np.array([[2, 1]], np.uint16), None),
        ('a.tif', np.array([[2, 1]], np.float32), None),
        ('a.bmp', np.array([[2, 1]], np.uint8), None),
    ],
)
def test_values_beyond_8_bits_are_refused_in_every_format(tmp_path, name, labels, message):
    Image.fromarray(labels).save(tmp_path / name)
    if message is None:
        check_label_map(tmp_path / name, labels.astype(np.uint8), (1, 2), 4)
    else:
        with pytest.raises(UserError, match=message):
            check_label_map(tmp_path / name, labels.astype(np.uint8), (1, 2), 4)


@pytest.mark.slow
def test_masks_of_0_and_255_are_refused_and_mapped(data, train):
    rewrite(data, lambda labels: ((labels > 1) * 255).astype(np.uint8))
    status, _, errors = train(SEGMENTATION, **BINARY)
    assert status == 2 and 'label maps contain 0 and 255 only' in errors
    mapping = dict(type='mlp_dense.MapLabels', labels={255: 1})
    remedies = {}
    for name, last in (('train', 'PackSegInputs'), ('val', 'PackSegInputs')):
        remedies[f'{name}_dataloader.dataset.pipeline'] = [
            dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), mapping, dict(type=last)
        ]  # fmt: skip
    status, output, errors = train(SEGMENTATION, **BINARY, **remedies)
    assert status == 0, errors
    assert 'Problems in the data' not in output


def test_labels_are_mapped():
    results = MapLabels({255: 1, 3: 255})(dict(gt_seg_map=np.array([[0, 255, 3]], np.uint8)))
    assert results['gt_seg_map'].tolist() == [[0, 1, 255]] and results['gt_seg_map'].dtype == np.uint8
    with pytest.raises(UserError, match='MapLabels maps 256 to 1; use labels from 0 to 255'):
        MapLabels({256: 1})


@pytest.mark.slow
def test_label_maps_without_a_pixel_to_learn_are_refused(data, train):
    rewrite(data, np.zeros_like)  # reduce_zero_label ignores 0
    status, _, errors = train(SEGMENTATION)
    assert status == 2 and 'label maps have ignored pixels only (all): 8; set reduce_zero_label=False if 0' in errors


@pytest.mark.slow
def test_rows_of_label_maps_and_suffixes(data, train):
    """A class without a pixel, mostly ignored pixels, and images with another suffix."""
    rewrite(data, lambda labels: np.where((np.arange(96)[:, None] > 5) | (labels == 3), 0, labels).astype(np.uint8))
    file = min((data / 'train').iterdir())
    file.rename(file.with_suffix('.JPG'))
    (data / 'train' / '__MACOSX').mkdir()
    (data / 'train' / '__MACOSX' / 'x.png').write_bytes(b'')
    status, output, errors = train(SEGMENTATION)
    assert status == 0, errors
    assert 'label maps: 94% of their pixels are ignored (all)' in output
    assert f'images with the suffix .JPG are not used: {file.with_suffix(".JPG")}\n' in output
    assert "-> rename them, or set img_suffix='.JPG'" in output
    assert ' classes occur in no label map (all): ' in output
    assert '.png are not used' not in output


@pytest.mark.slow
def test_other_suffix_of_all_images_is_named(data, train):
    for file in data.glob('*/*.jpg'):
        file.rename(file.with_suffix('.jpeg'))
    status, _, errors = train(SEGMENTATION)
    assert status == 2 and "has no image with the suffix .jpg, but 8 with .jpeg; set img_suffix='.jpeg'" in errors


@pytest.mark.slow
def test_missing_label_map_is_refused(data, train):
    file = min((data / 'labels' / 'train').iterdir())
    file.unlink()
    status, _, errors = train(SEGMENTATION)
    assert status == 2 and f'label maps are missing: 1, for example {file}; add the files' in errors


@pytest.mark.parametrize(('suffix', 'is_lossy'), [('.png', False), ('_mask.JPG', True), ('.jpeg', True)])
def test_label_maps_in_jpeg_are_lossy(suffix, is_lossy):
    dataset = SimpleNamespace(seg_map_suffix=suffix, data_prefix=dict(seg_map_path='labels'))
    assert has_lossy_labels(dataset) == is_lossy
    assert not has_lossy_labels(SimpleNamespace(seg_map_suffix=suffix, data_prefix={}))
