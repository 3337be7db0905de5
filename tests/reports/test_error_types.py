"""Kinds of errors, what they cost, and confusion: by hand, against a statement in loops, and tidecv's numbers."""

import numpy as np
import pytest
from pycocotools import mask as masks

from mlp_dense.reports.coco_results import as_rle
from mlp_dense.reports.detection import confusion_matrix
from mlp_dense.reports.error_types import ERRORS, Matched, error_costs, match_image
from support.detections import random_coco

CLASSES = 4
# tidecv 1.0.1, TIDE().evaluate, divided by 100; its mean is over classes with objects or detections, here the same.
TIDECV = {
    'bbox': {
        'AP50': 0.3748892030283427,
        'classification': 0.12438060564605777,
        'localization': 0.018362668821977906,
        'both': 0.018229853872498794,
        'duplicate': 0.018869160618836602,
        'background': 0.1339549993927298,
        'missed': 0.07592213310326855,
        'false positives': 0.3676850543974,
        'false negatives': 0.12864293902669092,
    },
    'segm': {
        'AP50': 0.35757022630018776,
        'classification': 0.13075226487833511,
        'localization': 0.013899558359099373,
        'both': 0.015710146938697704,
        'duplicate': 0.018549782949063882,
        'background': 0.13688684239292314,
        'missed': 0.07491250267105102,
        'false positives': 0.385004031125555,
        'false negatives': 0.1226800512042685,
    },
}


def one(box: tuple, label: int, score: float | None = None, **more) -> dict:
    return {'bbox': list(box), 'class': label, **({} if score is None else dict(score=score)), **more}


def test_each_kind():
    truth = [one((0, 0, 10, 10), 0), one((100, 0, 10, 10), 1), one((200, 0, 10, 10), 0), one((300, 0, 10, 10), 1)]
    truth.append(one((400, 0, 50, 50), 0, iscrowd=1))
    found = [
        one((0, 0, 10, 9), 0, 0.9),  # hit
        one((0, 0, 10, 10), 0, 0.8),  # another on the same object
        one((100, 0, 10, 9), 0, 0.7),  # another class
        one((205, 0, 10, 10), 0, 0.6),  # a third of it
        one((305, 0, 10, 10), 0, 0.5),  # a third of another class
        one((500, 0, 10, 10), 1, 0.4),  # nothing there
        one((410, 10, 10, 10), 0, 0.35),  # in the crowd
        one((0, 0, 10, 10), 1, 0.2),  # another class, of an object that is hit
    ]
    matched = match_image(truth, found, 'bbox', score_thr=0.3)
    kinds = ['hit', 'duplicate', 'classification', 'localization', 'both', 'background', 'background', 'classification']
    assert matched.kinds.tolist() == kinds
    assert matched.ignored.tolist() == [False] * 6 + [True, False]
    assert matched.objects.tolist() == [0, 0, 1, 2, -1, -1, -1, 0]
    assert matched.mends.tolist() == [False, False, True, True, False, False, False, False]
    assert matched.missed.tolist() == [False, False, False, True]
    assert matched.hit_by.tolist() == [0, -1, -1, -1]
    assert matched.overlaps[:4] == pytest.approx([0.9, 1, 0.9, 1 / 3])
    table = confusion_matrix([matched], 2)
    assert table.tolist() == [[1, 0, 1], [1, 0, 1], [3, 1, 0]]
    assert table.sum() == 8, 'what a score below the threshold has is not shown, nor what is in a crowd'


def test_confusion_prefers_the_own_class_then_the_overlap():
    truth = [one((0, 0, 10, 10), 0), one((1, 0, 10, 10), 1)]
    found = [one((1, 0, 10, 10), 2, 0.9), one((0, 0, 10, 10), 2, 0.8), one((1, 0, 10, 10), 1, 0.5)]
    assert confusion_matrix([match_image(truth, found, 'bbox', 0.3)], 3).tolist() == [
        [0, 0, 1, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 1, 0],
    ]


def test_nothing():
    for truth, found in (([], []), ([one((0, 0, 9, 9), 0)], []), ([], [one((0, 0, 9, 9), 0, 0.9)])):
        matched = match_image(truth, found, 'bbox', 0.3)
        assert len(matched.kinds) == len(found) and matched.missed.sum() == len(truth)
        assert confusion_matrix([matched], 1).sum() == len(truth) + len(found)
    costs = error_costs([match_image([], [], 'bbox', 0.3)], 3)
    assert np.isnan(costs['AP50'])


def data(kind: str, seed: int = 5) -> list[tuple[list[dict], list[dict]]]:
    """Ground truth and detections of each image."""
    content, found = random_coco(40, CLASSES, seed)
    sides = {image['id']: ([], []) for image in content['images']}
    for i, some in enumerate((content['annotations'], found)):
        for each in some:
            rle = as_rle(each['segmentation'], 240, 320)
            sides[each['image_id']][i].append({**each, 'class': each['category_id'] // 2, 'rle': rle})
    return list(sides.values())


def in_loops(images: list[tuple[list[dict], list[dict]]], kind: str) -> dict[str, float]:
    """TIDE once more, object by object: everything wrong is an error with the kind, the detection and the object."""
    part = 'bbox' if kind == 'bbox' else 'rle'
    points, errors, counts = [], [], np.zeros(CLASSES)  # points: class, score, right
    for truth, found in images:
        objects = [dict(each, hit=False, best=None) for each in truth if not each['iscrowd']]
        crowds = [each for each in truth if each['iscrowd']]
        for each in objects:
            counts[each['class']] += 1
        found = [dict(each, kept=True, hit=False) for each in sorted(found, key=lambda each: -each['score'])]

        def overlap(a: dict, b: dict, crowd: bool = False) -> float:
            return float(masks.iou([a[part]], [b[part]], [crowd])[0, 0])

        for each in found:
            free = [o for o in objects if o['class'] == each['class'] and not o['hit'] and overlap(each, o) >= 0.5]
            if free:
                best = max(free, key=lambda o: overlap(each, o))
                best['hit'] = each['hit'] = True
        for each in found:
            if each['hit']:
                points.append((each['class'], each['score'], True))
                continue
            inside = any(c['class'] == each['class'] and overlap(each, c, True) > 0.5 for c in crowds)
            own = [o for o in objects if o['class'] == each['class']]
            others = [o for o in objects if o['class'] != each['class']]
            near = max(own, key=lambda o: overlap(each, o), default=None)
            wrong = max(others, key=lambda o: overlap(each, o), default=None)
            own_overlap = overlap(each, near) if near else 0.0
            other_overlap = overlap(each, wrong) if wrong else 0.0
            target = None
            if near and 0.1 <= own_overlap <= 0.5:
                name, target = 'localization', near
            elif other_overlap >= 0.5:
                name, target = 'classification', wrong
            elif own_overlap >= 0.5:
                name = 'duplicate'
            elif max(own_overlap, other_overlap) <= 0.1:
                name = 'background'
            else:
                name = 'both'
            error = dict(name=name, each=each, inside=inside, target=target)
            if target is not None and not target['hit'] and target['best'] is None:
                target['best'] = error
            errors.append(error)
        errors += [dict(name='missed', target=o) for o in objects if not o['hit'] and o['best'] is None]
        errors += [dict(name='unhit', target=o) for o in objects if not o['hit']]

    def mean_ap(points: list, counts: np.ndarray) -> float:
        values = []
        for label in range(CLASSES):
            own = sorted((p for p in points if p[0] == label), key=lambda p: -p[1])
            right = np.cumsum([p[2] for p in own])
            precision = right / np.arange(1, len(own) + 1)
            recalls = right / counts[label]
            values.append(np.mean([max(precision[recalls >= r], default=0) for r in np.linspace(0, 1, 101)]))
        return float(np.mean(values))

    def kept(name: str | None) -> list:
        """The wrong points, with one kind of error mended."""
        out = []
        for error in errors:
            if 'each' not in error:
                continue
            each = error['each']
            if error['name'] != name:
                if not error['inside']:
                    out.append((each['class'], each['score'], False))
            elif error['target'] is not None and error['target']['best'] is error:
                out.append((error['target']['class'], each['score'], True))
        return out

    now = mean_ap(points + kept(None), counts)
    costs = {name: mean_ap(points + kept(name), counts) - now for name in ERRORS}
    for name, label in (('missed', 'missed'), ('unhit', 'false negatives')):
        fewer = counts - np.bincount([e['target']['class'] for e in errors if e['name'] == name], minlength=CLASSES)
        costs[label] = mean_ap(points + kept(None), fewer) - now
    return dict(AP50=now, **costs)


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_costs(kind, monkeypatch):
    images = data(kind)
    matched: list[Matched] = [match_image(*each, kind, 0.3) for each in images]
    costs, expected = error_costs(matched, CLASSES), in_loops(images, kind)
    for name, value in expected.items():
        assert costs[name] == pytest.approx(max(value, 0), abs=1e-12), name
    assert all(costs[name] > 0 for name in (*ERRORS, 'missed')), 'the data have errors of every kind'
    # It takes 0.07 for the seventh recall, and COCO np.linspace(0, 1, 101)[7], which is a little more.
    monkeypatch.setattr('mlp_dense.reports.error_types.RECALLS', np.arange(101) / 100)
    costs = error_costs(matched, CLASSES)
    for name, value in TIDECV[kind].items():
        assert costs[name] == pytest.approx(value, abs=1e-9), name
