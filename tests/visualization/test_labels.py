"""Positions of text on an image: it hides neither small objects nor other text."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from mlp_dense.visualization import drawing
from mlp_dense.visualization.curves import distinct_names
from mlp_dense.visualization.drawing import colours

HEIGHT, WIDTH = 300, 400
COLOUR = (200, 30, 30)


@pytest.fixture
def written(monkeypatch):
    """Return a function that writes names on black; it returns texts and boxes (left, top, right, bottom)."""
    texts = []
    write = drawing._Canvas.write

    def record(self, text, x, y, colour):
        width, height = self.size_of(text)
        texts.append((text, (x, y, x + width, y + height)))
        write(self, text, x, y, colour)

    monkeypatch.setattr(drawing._Canvas, 'write', record)

    def written(boxes, names, scores=None) -> list:
        texts.clear()
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        scores = scores or [''] * len(names)
        drawn = drawing.write_names(image, names, scores, np.array(boxes).reshape(-1, 4), [COLOUR] * len(names))
        assert drawn.shape == image.shape and not image.any()
        return list(texts)

    return written


def overlap(first: tuple, second: tuple) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def test_large_object_has_its_name_above(written):
    ((text, (left, _, _, bottom)),) = written([[50, 100, 250, 250]], ['horse'], ['93'])
    assert (text, left, bottom) == ('horse 93', 50, 100)
    ((_, (*_, bottom)),) = written([[50, 0, 350, 290]], ['horse'])
    assert bottom < 30, 'inside if there is no space above'


def test_names_do_not_cover_small_objects(written):
    small = [[x, y, x + 24, y + 24] for x in range(20, 380, 30) for y in range(40, 280, 60)]
    texts = written(small, ['person'] * len(small), ['88'] * len(small))
    positions = [position for _, position in texts]
    assert len(texts) > len(small) / 3, 'many objects have a text'
    assert not any(overlap(position, box) for position in positions for box in small)
    assert not any(overlap(*pair) for pair in itertools.combinations(positions, 2))
    assert all(left >= 0 and right <= WIDTH and top >= 0 and bottom <= HEIGHT for left, top, right, bottom in positions)


def test_names_in_a_crowd_become_scores_and_then_nothing(written):
    crowd = [[x, 140, x + 28, 170] for x in range(10, 380, 29)]
    texts = [text for text, _ in written(crowd, ['wine glass'] * len(crowd), ['71'] * len(crowd))]
    assert texts[0] == 'wine glass 71' and '71' in texts
    packed = [[x, y, x + 20, y + 20] for x in range(0, 400, 20) for y in range(0, 300, 20)]
    assert len(written(packed, ['cell'] * len(packed))) == 1, 'the class is named once'


def test_every_class_is_named(written):
    boxes = [[40, 40, 360, 280], *([100 + i, 100 + i, 116 + i, 116 + i] for i in range(8))]
    names = ['table', *'abcdefgh']
    assert {text for text, _ in written(boxes, names)} == set(names)


def test_captions_are_black_on_white_above_the_images():
    first = drawing.captioned(np.zeros((100, 200, 3), np.uint8), 'ground truth')
    second = drawing.captioned(np.zeros((100, 40, 3), np.uint8), 'predictions with a score above 0.3')
    assert first.shape == (121, 200, 3) and second.shape == (121, 40, 3)
    assert (first[:21] == 255).mean() > 0.7 and (first[:21] < 100).any(), 'black on white'
    assert not first[21:].any()


@pytest.mark.parametrize('palette', [None, 'random', [(220, 20, 60), (119, 11, 32), (0, 0, 142)] * 27], ids=type)
def test_colours_of_replaced_classes_differ(palette):
    """COCO's first colours are similar. Mmdet assigns them to custom classes in COCO's format."""
    first = colours(palette, 8)
    assert first == colours(palette, 8) and len(first) == 8
    difference = min(np.abs(np.subtract(*pair)).sum() for pair in itertools.combinations(first, 2))
    assert difference > 120
    assert len({*colours(None, 200)}) == 200
    assert colours([[1, 2, 3], [4, 5, 6]], 2) == [(1, 2, 3), (4, 5, 6)]


@pytest.mark.parametrize(
    ('runs', 'names'),
    [
        ([('a', 'x/1/report'), ('b', 'x/2/report')], ['a', 'b']),
        ([('a', '/x/1/report'), ('a', '/x/2/report')], ['a (1)', 'a (2)']),
        ([('a', '/x/1/fold/r'), ('b', '/x/2/r'), ('a', '/x/2/fold/r')], ['a (1/fold)', 'b', 'a (2/fold)']),
        ([('a', '/x'), ('a', '/x/y')], ['a (.)', 'a (y)']),
        ([('a', '/x/y'), ('a', '/x/y/y')], ['a (.)', 'a (y)']),
    ],
)
def test_distinct_names_have_the_shortest_paths(runs, names):
    assert distinct_names([name for name, _ in runs], [Path(path) for _, path in runs]) == names
