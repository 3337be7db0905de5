"""AP from the matches of pycocotools equals pycocotools' AP, also on resampled images."""

import contextlib
import copy
import io

import numpy as np
import pytest
from pycocotools.cocoeval import COCOeval

from mlp_dense.reports.detection import match_shard
from mlp_dense.reports.matching import AREAS, Matches, as_coco, average_precision, joined_matches
from support.detections import random_coco

CLASSES = 6


def evaluated(content: dict, detections: list[dict], geometry: str) -> COCOeval:
    coco = as_coco(content['images'], copy.deepcopy(content['annotations']), range(1, 2 * CLASSES, 2))
    detections = copy.deepcopy(detections)
    for detection in detections if geometry == 'segm' else ():
        del detection['bbox']  # as mmdet does, otherwise COCO computes the areas from boxes
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco, coco.loadRes(detections), geometry)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def matched(content: dict, detections: list[dict], geometry: str, shard_size: int = 1000) -> list[list[Matches]]:
    samples = {image['id']: (image, [], []) for image in content['images']}
    for side, items in enumerate((content['annotations'], detections), 1):
        for item in items:
            samples[item['image_id']][side].append({**item, 'category_id': item['category_id'] // 2})
    samples = list(samples.values())
    parts = [samples[start : start + shard_size] for start in range(0, len(samples), shard_size)]
    shards = [match_shard(part, geometry, CLASSES, 0.3)[0] for part in parts]
    return [
        [joined_matches([shard[label][area] for shard in shards]) for area in range(len(AREAS))]
        for label in range(CLASSES)
    ]


@pytest.mark.parametrize('geometry', ['bbox', 'segm'])
@pytest.mark.parametrize('shard_size', [1000, 7])
def test_curves_equal_pycocotools(geometry, shard_size):
    content, detections = random_coco(60, CLASSES, seed=1)
    expected = evaluated(content, detections, geometry)
    matches = matched(content, detections, geometry, shard_size)
    for area in range(len(AREAS)):
        curves, recalls = zip(*(areas[area].curve() for areas in matches), strict=True)
        expected_curves = expected.eval['precision'][..., area, 2].transpose(2, 0, 1)  # (T, R, C) to (C, T, R)
        np.testing.assert_allclose(np.nan_to_num(curves, nan=-1), expected_curves, rtol=0, atol=1e-12)
        expected_recalls = expected.eval['recall'][..., area, 2].T
        np.testing.assert_allclose(np.nan_to_num(recalls, nan=-1), expected_recalls, rtol=0, atol=1e-12)
    mean = np.nanmean(average_precision([areas[0] for areas in matches]))
    assert mean == pytest.approx(expected.stats[0], abs=1e-12) and 0.05 < mean < 0.95


def test_weight_of_two_equals_two_images():
    content, detections = random_coco(20, CLASSES, seed=2)
    weights = np.random.default_rng(0).integers(0, 3, 20)
    repeated, repeated_detections = dict(content, images=[], annotations=[]), []
    for image, weight in zip(content['images'], weights, strict=True):
        for _ in range(weight):
            number = len(repeated['images'])
            repeated['images'].append(dict(image, id=number))
            copies = [dict(item, image_id=number) for item in content['annotations'] if item['image_id'] == image['id']]
            start = len(repeated['annotations']) + 1
            repeated['annotations'] += [dict(item, id=start + i) for i, item in enumerate(copies)]
            copies = [dict(item, image_id=number) for item in detections if item['image_id'] == image['id']]
            repeated_detections += copies  # equal scores follow each other in the order of the images
    expected = evaluated(repeated, repeated_detections, 'bbox').stats[0]
    ap = average_precision([areas[0] for areas in matched(content, detections, 'bbox')], weights)
    assert np.nanmean(ap) == pytest.approx(expected, abs=1e-3), 'equal except for the ties of repeated images'


@pytest.mark.parametrize('side', ['annotations', 'detections'])
def test_ap_without_objects_or_detections(side):
    content, detections = random_coco(5, CLASSES, seed=3)
    content, detections = (dict(content, annotations=[]), detections) if side == 'annotations' else (content, [])
    values = average_precision([areas[0] for areas in matched(content, detections, 'bbox')])
    assert np.isnan(values).all() if side == 'annotations' else np.nanmax(values) == 0
