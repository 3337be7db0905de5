"""AP from what pycocotools matches is pycocotools' AP, also when images are resampled."""

import contextlib
import copy
import io

import numpy as np
import pytest
from pycocotools.cocoeval import COCOeval

from mlp_dense.reports import average_precision as precision
from mlp_dense.reports.coco_results import match_shard
from support.detections import random_coco

CLASSES = 6


def evaluated(content: dict, found: list[dict], kind: str) -> COCOeval:
    coco = precision.as_coco(content['images'], copy.deepcopy(content['annotations']), range(1, 2 * CLASSES, 2))
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(found)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def matched(content: dict, found: list[dict], kind: str, shard: int = 1000) -> list[list[precision.Matches]]:
    parts, images = [], content['images']
    for start in range(0, len(images), shard):
        own = images[start : start + shard]
        ids = {image['id'] for image in own}
        sides = ([{**e, 'class': e['category_id'] // 2} for e in some if e['image_id'] in ids]
                 for some in (content['annotations'], found))  # fmt: skip
        parts.append(match_shard((own, *sides), kind, range(1, 2 * CLASSES, 2), 0.3)[0])
    areas = range(len(precision.AREAS))
    return [[precision.merged([part[label, area] for part in parts]) for area in areas] for label in range(CLASSES)]


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
@pytest.mark.parametrize('shard', [1000, 7])
def test_is_that_of_pycocotools(kind, shard):
    content, found = random_coco(60, CLASSES, seed=1)
    expected = evaluated(content, found, kind)
    matches = matched(content, found, kind, shard)
    for area in range(len(precision.AREAS)):
        curves, recalls = zip(*(each[area].curve() for each in matches), strict=True)
        theirs = expected.eval['precision'][..., area, 2].transpose(2, 0, 1)  # (T, R, C) to (C, T, R)
        np.testing.assert_allclose(np.nan_to_num(curves, nan=-1), theirs, rtol=0, atol=1e-12)
        reached = expected.eval['recall'][..., area, 2].T
        np.testing.assert_allclose(np.nan_to_num(recalls, nan=-1), reached, rtol=0, atol=1e-12)
    mean = np.nanmean(precision.average_precision([each[0] for each in matches]))
    assert mean == pytest.approx(expected.stats[0], abs=1e-12) and 0.05 < mean < 0.95


def test_an_image_that_counts_twice_is_two_images():
    content, found = random_coco(20, CLASSES, seed=2)
    weights = np.random.default_rng(0).integers(0, 3, 20)
    repeated, more = dict(content, images=[], annotations=[]), []
    for image, weight in zip(content['images'], weights, strict=True):
        for _ in range(weight):
            number = len(repeated['images'])
            repeated['images'].append(dict(image, id=number))
            own = [dict(e, image_id=number) for e in content['annotations'] if e['image_id'] == image['id']]
            repeated['annotations'] += [dict(e, id=len(repeated['annotations']) + i + 1) for i, e in enumerate(own)]
            # Equal scores follow each other in the order of the images.
            more += [dict(e, image_id=number) for e in found if e['image_id'] == image['id']]
    expected = evaluated(repeated, more, 'bbox').stats[0]
    found_precision = precision.average_precision([each[0] for each in matched(content, found, 'bbox')], weights)
    assert np.nanmean(found_precision) == pytest.approx(expected, abs=1e-3), 'but for ties, which repetition makes'


@pytest.mark.parametrize('side', ['annotations', 'found'])
def test_nothing_on_one_side(side):
    content, found = random_coco(5, CLASSES, seed=3)
    content, found = (dict(content, annotations=[]), found) if side == 'annotations' else (content, [])
    values = precision.average_precision([each[0] for each in matched(content, found, 'bbox')])
    assert np.isnan(values).all() if side == 'annotations' else np.nanmax(values) == 0
