"""Error types, their costs, and confusion: by hand and by tidecv."""

import numpy as np
import pytest

from mlp_dense.reports.matching import Errors, error_costs, joined_errors, match_image
from mlp_dense.reports.plots import confusion_counts
from support.detections import random_coco

CLASSES = 4
COSTS = ('AP50', 'classification', 'localization', 'both', 'duplicate', 'background', 'missed')
# tidecv 1.0.1, TIDE().evaluate, divided by 100. Its mean is over the classes with objects or detections, which are the
# same here.
TIDECV = {
    'bbox': (
        *(0.3748892030283427, 0.12438060564605777, 0.018362668821977906, 0.018229853872498794, 0.018869160618836602),
        *(0.1339549993927298, 0.07592213310326855),
    ),
    'segm': (
        *(0.35757022630018776, 0.13075226487833511, 0.013899558359099373, 0.015710146938697704, 0.018549782949063882),
        *(0.13688684239292314, 0.07491250267105102),
    ),
}


def confusion_matrix(errors: Errors, classes: int) -> np.ndarray:
    return confusion_counts(*(errors.confused % (classes + 1)), classes + 1)


def item(box: tuple, label: int, score: float | None = None, **extra) -> dict:
    return {'bbox': list(box), 'category_id': label, **({} if score is None else dict(score=score)), **extra}


def test_match_image_finds_each_type():
    truth = [item((0, 0, 10, 10), 0), item((100, 0, 10, 10), 1), item((200, 0, 10, 10), 0), item((300, 0, 10, 10), 1)]
    truth.append(item((400, 0, 50, 50), 0, iscrowd=1))
    detections = [
        item((0, 0, 10, 9), 0, 0.9),  # hit
        item((0, 0, 10, 10), 0, 0.8),  # second detection of the same object
        item((100, 0, 10, 9), 0, 0.7),  # wrong class
        item((205, 0, 10, 10), 0, 0.6),  # IoU 1/3
        item((305, 0, 10, 10), 0, 0.5),  # IoU 1/3 with an object of another class
        item((500, 0, 10, 10), 1, 0.4),  # no object
        item((410, 10, 10, 10), 0, 0.35),  # in the crowd
        item((0, 0, 10, 10), 1, 0.2),  # wrong class, of an object with a hit
    ]
    errors = match_image(truth, detections, 'bbox', score_thr=0.3)
    types = ['hit', 'duplicate', 'classification', 'localization', 'both', 'background', 'background', 'classification']
    assert errors.types.tolist() == types
    assert errors.ignored.tolist() == [False] * 6 + [True, False]
    assert errors.objects.tolist() == [0, 0, 1, 2, -1, -1, -1, 0]
    assert errors.becomes_hit_if_fixed.tolist() == [False, False, True, True, False, False, False, False]
    assert errors.missed.tolist() == [False, False, False, True]
    assert errors.hit_by.tolist() == [0, -1, -1, -1]
    table = confusion_matrix(errors, 2)
    assert table.tolist() == [[1, 0, 1], [1, 0, 1], [3, 1, 0]]
    assert table.sum() == 8, 'scores below the threshold and detections in a crowd are not counted'


def test_confusion_prefers_the_same_class_then_the_overlap():
    truth = [item((0, 0, 10, 10), 0), item((1, 0, 10, 10), 1)]
    detections = [item((1, 0, 10, 10), 2, 0.9), item((0, 0, 10, 10), 2, 0.8), item((1, 0, 10, 10), 1, 0.5)]
    table = confusion_matrix(match_image(truth, detections, 'bbox', 0.3), 3).tolist()
    assert table == [[0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]


def test_match_image_without_objects_or_detections():
    box = (0, 0, 9, 9)
    for truth, detections in (([], []), ([item(box, 0)], []), ([], [item(box, 0, 0.9)])):
        errors = match_image(truth, detections, 'bbox', 0.3)
        assert len(errors.types) == len(detections) and errors.missed.sum() == len(truth)
        assert confusion_matrix(errors, 1).sum() == len(truth) + len(detections)
    costs = error_costs(match_image([], [], 'bbox', 0.3), 3)
    assert np.isnan(costs['AP50'])


def images_of(seed: int = 5) -> list[tuple[list[dict], list[dict]]]:
    """Return ground truth and detections of each image."""
    content, detections = random_coco(40, CLASSES, seed)
    sides = {image['id']: ([], []) for image in content['images']}
    for side, items in enumerate((content['annotations'], detections)):
        for record in items:
            sides[record['image_id']][side].append({**record, 'category_id': record['category_id'] // 2})
    return list(sides.values())


@pytest.mark.parametrize('geometry', ['bbox', 'segm'])
def test_error_costs_equal_tidecv(geometry, monkeypatch):
    # The seventh recall is 0.07 in tidecv, and slightly more in COCO: np.linspace(0, 1, 101)[7].
    monkeypatch.setattr('mlp_dense.reports.matching.RECALLS', np.arange(101) / 100)
    costs = error_costs(joined_errors([match_image(*sides, geometry, 0.3) for sides in images_of()]), CLASSES)
    assert costs.keys() == set(COSTS)
    for name, value in zip(COSTS, TIDECV[geometry], strict=True):
        assert costs[name] == pytest.approx(value, abs=1e-9) and value > 0, name
