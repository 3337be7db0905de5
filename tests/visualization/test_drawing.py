"""Drawings of labels on images."""

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData, PixelData

from mlp_dense.visualization import drawing


def test_enlarged_size_is_a_multiple():
    assert drawing.enlarged_size(1, 1) == (320, 320)
    assert drawing.enlarged_size(128, 130) == (384, 390)
    assert drawing.enlarged_size(320, 400) == (320, 400)
    assert drawing.enlarged_size(1, 3000) == (1, 3000), 'such a long image keeps its size'


def test_label_map_is_resized_to_the_nearest_pixel(monkeypatch):
    monkeypatch.setattr(drawing, 'write', lambda drawn, *_, **__: drawn)  # no names
    palette = [[20 * i, 0, 0] for i in range(12)]

    def drawn(labels: torch.Tensor, *size: int) -> torch.Tensor:
        image = np.zeros((*size, 3), np.uint8)
        return torch.from_numpy(drawing.draw_label_map(image, PixelData(data=labels), None, palette, palette))[..., 0]

    labels = torch.arange(12).view(1, 3, 4)
    larger = labels.repeat_interleave(2, -2).repeat_interleave(2, -1)
    assert torch.equal(drawn(labels, 6, 8), 10 * larger[0].byte())
    assert torch.equal(drawn(larger, 3, 4), 10 * labels[0].byte())


def test_draw_label_map_hatches_ignored_pixels():
    labels = torch.zeros(1, 200, 200, dtype=torch.int64)
    labels[:, :100] = 255
    image = np.full((200, 200, 3), 100, np.uint8)
    drawn = drawing.draw_label_map(image, PixelData(data=labels), (200, 200), ['thing'], [[200, 0, 0]])
    assert len(np.unique(drawn[:10].reshape(-1, 3), axis=0)) == 2, 'stripes of two colours'
    assert (drawn[-1, 0] == [150, 50, 50]).all(), 'half image, half colour'


@pytest.mark.parametrize('size', [(1, 1), (3, 200), (300, 400)])
def test_draw_instances_accepts_any_size_and_boxes_at_the_border(size):
    height, width = size
    boxes = torch.tensor([[0, 0, width, height], [width - 1, height - 1, width, height], [-5, -5, 2, 2]]).float()
    instances = InstanceData(
        bboxes=boxes, labels=torch.tensor([0, 1, 0]), scores=torch.ones(3), masks=torch.ones(3, *size).bool()
    )
    image = np.zeros((*size, 3), np.uint8)
    drawn = drawing.draw_instances(image, instances, size, ['a long name of a class', 'b'], None)
    assert drawn.shape == image.shape and drawn.any() and not image.any()
    empty = drawing.draw_instances(image, instances[:0], size, ['a', 'b'], 'random')
    assert not empty.any()


def test_draw_instances_draws_small_objects_last_with_thin_lines():
    boxes = torch.tensor([[100, 100, 110, 110], [20, 20, 280, 280]]).float()
    instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 1]))
    image = np.zeros((300, 300, 3), np.uint8)
    drawn = drawing.draw_instances(image, instances, (300, 300), ['small', 'large'], [(255, 0, 0), (0, 255, 0)])
    assert (drawn[100:110, 100] == (255, 0, 0)).all() and not drawn[102:108, 102:108].any(), 'the line has one pixel'
    assert (drawn[150, 20:22] == (0, 255, 0)).all(), 'the line has two pixels'


def test_draw_labels_writes_captions():
    image, labels = np.zeros((400, 500, 3), np.uint8), PixelData(data=torch.zeros(1, 400, 500, dtype=torch.int64))
    meta = dict(classes=['road'], palette=[(9, 9, 9)])
    drawn = drawing.draw_labels(image, [labels, labels], drawing.draw_label_map, meta, captions=('left', 'right'))
    assert drawn.shape == (421, 1000, 3) and (drawn[0] == 255).all()
    alone = drawing.draw_labels(image, [None, labels], drawing.draw_label_map, meta, captions=('left', 'right'))
    assert (alone == drawn[:, 500:]).all(), 'a missing label has no caption'


def test_draw_labels_keeps_the_order_of_channels():
    image, labels = np.zeros((400, 400, 3), np.uint8), PixelData(data=torch.zeros(1, 400, 400, dtype=torch.int64))
    image[:] = (50, 0, 0)
    arguments = [labels], drawing.draw_label_map, dict(classes=['road'], palette=[(200, 100, 0)])
    rgb = drawing.draw_labels(image, *arguments)
    assert (rgb[-1, -1] == (125, 50, 0)).all(), 'half image, half palette'
    bgr = drawing.draw_labels(image[..., ::-1], *arguments, bgr=True)
    assert (bgr == rgb[..., ::-1]).all() and bgr.flags['C_CONTIGUOUS']
