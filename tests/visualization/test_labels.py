"""Where text is put on an image: it hides neither small objects nor other text."""

import itertools

import numpy as np
import pytest

from mlp_dense.visualization import labels as text
from mlp_dense.visualization.drawing import colours

HEIGHT, WIDTH = 300, 400
COLOUR = (200, 30, 30)


@pytest.fixture
def written(monkeypatch):
    """Writes names on black; returns what was written, and the boxes of the texts as (left, top, right, bottom)."""
    found = []
    write = text._Paper.write

    def note(self, string, x, y, colour):
        found.append((string, (x, y, x + self.size_of(string)[0], y + self.size_of(string)[1])))
        write(self, string, x, y, colour)

    monkeypatch.setattr(text._Paper, 'write', note)

    def written(boxes, names, scores=None) -> list:
        found.clear()
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        scores = scores or [''] * len(names)
        drawn = text.write_names(image, names, scores, np.array(boxes).reshape(-1, 4), [COLOUR] * len(names))
        assert drawn.shape == image.shape and not image.any()
        return list(found)

    return written


def overlap(one: tuple, other: tuple) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def test_a_large_object_has_its_name_above(written):
    ((string, (left, _, _, bottom)),) = written([[50, 100, 250, 250]], ['horse'], ['93'])
    assert (string, left, bottom) == ('horse 93', 50, 100)
    ((_, (*_, bottom)),) = written([[50, 0, 350, 290]], ['horse'])
    assert bottom < 30, 'inside, where there is no room above'


def test_small_objects_stay_visible(written):
    small = [[x, y, x + 24, y + 24] for x in range(20, 380, 30) for y in range(40, 280, 60)]
    found = written(small, ['person'] * len(small), ['88'] * len(small))
    places = [place for _, place in found]
    assert len(found) > len(small) / 3, 'many have a text'
    assert not any(overlap(place, box) for place in places for box in small)
    assert not any(overlap(*pair) for pair in itertools.combinations(places, 2))
    assert all(left >= 0 and right <= WIDTH and top >= 0 and bottom <= HEIGHT for left, top, right, bottom in places)


def test_in_a_crowd_the_score_is_left_then_nothing(written):
    crowd = [[x, 140, x + 28, 170] for x in range(10, 380, 29)]
    found = [string for string, _ in written(crowd, ['wine glass'] * len(crowd), ['71'] * len(crowd))]
    assert found[0] == 'wine glass 71' and '71' in found
    packed = [[x, y, x + 20, y + 20] for x in range(0, 400, 20) for y in range(0, 300, 20)]
    assert len(written(packed, ['cell'] * len(packed))) == 1, 'the class is named once all the same'


def test_every_class_is_named(written):
    boxes = [[40, 40, 360, 280], *([100 + i, 100 + i, 116 + i, 116 + i] for i in range(8))]
    names = ['table', *'abcdefgh']
    assert {string for string, _ in written(boxes, names)} == set(names)


def test_captions():
    images = [np.zeros((100, 200, 3), np.uint8), np.zeros((100, 40, 3), np.uint8)]
    first, second = text.captioned(images, ['ground truth', 'predictions with a score above 0.3'])
    assert first.shape == (121, 200, 3) and second.shape == (121, 40, 3)
    assert (first[:21] == 255).mean() > 0.7 and (first[:21] < 100).any(), 'black on white'
    assert not first[21:].any()


@pytest.mark.parametrize('palette', [None, 'random', [(220, 20, 60), (119, 11, 32), (0, 0, 142)] * 27], ids=type)
def test_classes_without_a_palette_of_their_own_look_different(palette):
    """COCO's first colours, which mmdet gives to own classes in its format, are much alike."""
    found = colours(palette, 8)
    assert found == colours(palette, 8) and len(found) == 8
    apart = min(np.abs(np.subtract(*pair)).sum() for pair in itertools.combinations(found, 2))
    assert apart > 120
    assert len({*colours(None, 200)}) == 200


def test_an_own_palette_is_kept():
    assert colours([[1, 2, 3], [4, 5, 6]], 2) == [(1, 2, 3), (4, 5, 6)]
