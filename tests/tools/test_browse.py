"""The contact sheet of what a pipeline makes of the data, and what is drawn on pictures."""

import shutil

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from mlp_dense.reports import drawing
from support.tools import call

DETECTION = 'configs/detection/hire_mlp_mask_rcnn_shapes.py'
SEGMENTATION = 'configs/segmentation/hire_mlp_upernet_shapes.py'
COCO = 'configs/detection/as_mlp_mask_rcnn_coco.py'
ADE20K = 'configs/segmentation/hire_mlp_upernet_ade20k.py'


@pytest.mark.parametrize('config', [DETECTION, SEGMENTATION])
@pytest.mark.parametrize('split', ['train', 'val'])
def test_sheet(config, split, shapes, tmp_path, capsys):
    def sheet(seed: int) -> np.ndarray:
        out = tmp_path / 'new' / f'{seed}.png'
        arguments = ['--data-root', shapes, '--out', out, '--num', 3, '--seed', seed, '--split', split]
        assert call('browse', config, *arguments) == 0
        return cv2.imread(str(out))

    first = sheet(0)
    assert first.shape == (2 * (384 + 36 + 16) + 8, 2 * (384 + 8) + 8, 3)
    assert (first == sheet(0)).all() and (first != sheet(1)).any()
    assert f'3 of {16 if split == "train" else 8} pictures' in capsys.readouterr().out


@pytest.mark.parametrize(('config', 'data'), [(COCO, 'coco_tiny'), (ADE20K, 'ade_tiny')])
def test_genuine_pictures(config, data, shared, tmp_path):
    out = tmp_path / 'sheet.png'
    assert call('browse', config, '--data-root', shared / 'data' / data, '--out', out, '--num', 2) == 0
    assert cv2.imread(str(out)) is not None


def test_truth_in_another_size_than_the_picture(shapes, tmp_path, monkeypatch):
    """A test pipeline resizes the picture alone; the boxes must fall on the same objects nevertheless."""
    boxes = []

    def draw(picture, instances, *_):
        boxes.append(instances.bboxes)
        return picture

    monkeypatch.setattr(drawing, 'draw_instances', draw)
    for factor in (1.0, 2.0):
        options = ['--cfg-options', f'val_dataloader.dataset.pipeline.1.scale_factor={factor}']
        arguments = ['--data-root', shapes, '--split', 'val', '--num', 1, '--out', tmp_path / 'sheet.png', *options]
        assert call('browse', DETECTION, *arguments) == 0
    assert len(boxes[0]) and torch.equal(boxes[0], boxes[1])


def test_unreadable_picture(shapes, tmp_path, capsys):
    copy = tmp_path / 'shapes'
    shutil.copytree(shapes, copy)
    (copy / 'val' / '000003.jpg').write_bytes(b'')
    assert call('browse', SEGMENTATION, '--data-root', copy, '--split', 'val', '--out', tmp_path / 'sheet.png') == 2
    assert '000003.jpg is missing or no readable picture' in capsys.readouterr().err


def test_bad_input(shapes, tmp_path, capsys):
    for arguments, sentence in (
        (['configs/absent.py', '--out', tmp_path / 'a.png'], 'does not exist'),
        ([DETECTION, '--data-root', tmp_path, '--out', tmp_path / 'a.png'], 'does not exist, and the train data'),
        ([DETECTION, '--data-root', shapes, '--out', tmp_path / 'a.gif'], 'ends in .png'),
        ([DETECTION, '--data-root', shapes, '--out', tmp_path / 'a.png', '--num', 0], 'give 1 or more'),
    ):
        assert call('browse', *arguments) == 2
        assert sentence in capsys.readouterr().err


def test_enlargement():
    assert drawing.enlargement(1, 1) == 320
    assert drawing.enlargement(128, 128) == 3
    assert drawing.enlargement(320, 400) == 1
    assert drawing.enlargement(1, 3000) == 1, 'a picture as long as this stays as it is'


def test_maps_take_the_nearest_pixel():
    maps = torch.arange(12).view(1, 3, 4)
    sample = SegDataSample(gt_sem_seg=PixelData(data=maps))
    larger = drawing.resize_sample(sample, 3, 4, 6, 8).gt_sem_seg.data
    assert torch.equal(larger, maps.repeat_interleave(2, -2).repeat_interleave(2, -1))
    back = drawing.resize_sample(SegDataSample(gt_sem_seg=PixelData(data=larger)), 6, 8, 3, 4).gt_sem_seg.data
    assert torch.equal(back, maps)


def test_ignored_pixels_are_hatched():
    labels = np.zeros((200, 200), dtype=np.int64)
    labels[:100] = 255
    drawn = drawing.draw_label_map(np.full((200, 200, 3), 100, np.uint8), labels, ['thing'], [[200, 0, 0]])
    assert len(np.unique(drawn[:10].reshape(-1, 3), axis=0)) == 2, 'stripes of two colours'
    assert (drawn[-1, 0] == [150, 50, 50]).all(), 'half picture, half colour'


@pytest.mark.parametrize('size', [(1, 1), (3, 200), (300, 400)])
def test_any_size_and_boxes_at_the_border(size):
    height, width = size
    boxes = torch.tensor([[0, 0, width, height], [width - 1, height - 1, width, height], [-5, -5, 2, 2]]).float()
    instances = InstanceData(
        bboxes=boxes, labels=torch.tensor([0, 1, 0]), scores=torch.ones(3), masks=torch.ones(3, *size).bool()
    )
    picture = np.zeros((*size, 3), np.uint8)
    drawn = drawing.draw_instances(picture, instances, ['a long name of a class', 'b'], None)
    assert drawn.shape == picture.shape and drawn.any() and not picture.any()
    empty = drawing.draw_instances(picture, instances[:0], ['a', 'b'], 'random')
    assert not empty.any()
