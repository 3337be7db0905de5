"""Matches of detections: COCO's average precision, and the errors of TIDE (arXiv 2008.08115, section 2.2)."""

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from pycocotools import mask as masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

AREAS = ('all', 'small', 'medium', 'large')
THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of IoU
RECALLS = np.linspace(0, 1, 101)
FOREGROUND, BACKGROUND = 0.5, 0.1  # lowest IoU of a match, highest IoU of a detection of the background
ERRORS = ('classification', 'localization', 'both', 'duplicate', 'background')
HIT = 'hit'
Array = np.ndarray


@dataclass
class Matches:
    """D detections of one class in N images, by descending score, for one range of areas and T thresholds of IoU."""

    images: Array  # (D,) position of the image
    scores: Array  # (D,)
    correct: Array  # (T, D)
    counted: Array  # (T, D), False for ignored detections
    objects: Array  # (N,) number of objects per image

    def curve(self, weights: Array | None = None) -> tuple[Array, Array]:
        """Return the precision at the recalls (T, 101) and the highest recall (T,), as COCOeval accumulates them.

        `weights` (N,) is how often each image counts, by default once. Without objects, the values are NaN.
        """
        repeats = 1.0 if weights is None else weights[self.images]
        total = float(self.objects.sum() if weights is None else self.objects @ weights)
        if not total:
            return np.full((len(self.correct), len(RECALLS)), np.nan), np.full(len(self.correct), np.nan)
        true_positives = np.cumsum(self.correct * repeats, axis=1)
        false_positives = np.cumsum((self.counted & ~self.correct) * repeats, axis=1)
        sums = zip(true_positives, false_positives, strict=True)
        return np.stack([precision_at_recalls(*row, total) for row in sums]), true_positives.max(1, initial=0) / total


@dataclass
class Errors:
    """D detections by descending score, at most 100 per image, and G objects without crowds."""

    positions: Array  # (D,) position in the input
    classes: Array  # (D,)
    scores: Array  # (D,)
    types: Array  # (D,) HIT or one of ERRORS
    ignored: Array  # (D,) inside a crowd
    objects: Array  # (D,) the object that the detection hits or misplaces or misclassifies, or -1
    true_classes: Array  # (D,) class of this object, or -1
    becomes_hit_if_fixed: Array  # (D,) first erroneous detection of an object that has no hit
    object_positions: Array  # (G,) position in the input
    object_classes: Array  # (G,)
    hit_by: Array  # (G,) detection, or -1
    missed: Array  # (G,) without a hit, and without a detection that becomes its hit if fixed
    confused: Array  # (2, pairs) classes of the object and of the detection; -1 is background


def precision_at_recalls(true_positives: Array, false_positives: Array, total: float) -> Array:
    """Return the interpolated precision (101,) from cumulative counts (D,) of detections by descending score."""
    precision = true_positives / (true_positives + false_positives + np.spacing(1))
    precision = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)  # 0 beyond the highest recall
    return precision[np.searchsorted(true_positives / total, RECALLS)]


def average_precision(classes: Sequence[Matches], weights: Array | None = None) -> Array:
    """Return the average precision (C,) of classes, the mean over the thresholds; NaN for a class without objects."""
    return np.array([matches.curve(weights)[0].mean() for matches in classes])


def as_coco(images: Sequence[Mapping], annotations: Iterable[Mapping], categories: Iterable[int]) -> COCO:
    """Return an index of objects for COCOeval, with new ids because COCOeval does not match an object with id 0."""
    coco = COCO()
    objects = [{**annotation, 'id': i} for i, annotation in enumerate(annotations, 1)]
    coco.dataset = dict(images=images, annotations=objects, categories=[dict(id=i) for i in categories])
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def match(truth: COCO, detections: Iterable[Mapping], geometry: str) -> list[list[Matches]]:
    """Match detections (results in COCO's format) with COCOeval, by [category][range of areas], in the order of ids.

    `geometry` is ``bbox`` or ``segm``.
    """
    results = [dict(detection) for detection in detections]  # COCO adds keys
    for result in results if geometry == 'segm' else ():
        del result['bbox']  # otherwise COCO computes the areas from boxes
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(results) if results else COCO(), geometry)
        evaluation.evaluate()
    records = np.array(evaluation.evalImgs, dtype=object)
    by_area = records.reshape(len(evaluation.params.catIds), len(AREAS), len(evaluation.params.imgIds))
    return [[joined_matches([_of_image(record) for record in images]) for images in areas] for areas in by_area]


def _of_image(record: Mapping | None) -> Matches:
    """Convert COCOeval's record of an image, which is None without objects and detections."""
    if record is None:
        empty = np.zeros((len(THRESHOLDS), 0), dtype=bool)
        return Matches(np.zeros(0, dtype=int), np.zeros(0), empty, empty, np.zeros(1, dtype=int))
    scores, counted = np.array(record['dtScores'], dtype=float), record['dtIgnore'] == 0
    objects = np.count_nonzero(~np.asarray(record['gtIgnore'], dtype=bool))
    images = np.zeros(len(scores), dtype=int)
    return Matches(images, scores, (record['dtMatches'] > 0) & counted, counted, np.array([objects]))


def joined_matches(shards: Sequence[Matches]) -> Matches:
    """Join the matches of consecutive images; detections are sorted as in COCOeval."""
    starts = np.cumsum([0, *(len(shard.objects) for shard in shards[:-1])])
    images = np.concatenate([shard.images + start for shard, start in zip(shards, starts, strict=True)])
    arrays = _concatenated(shards) | dict(images=images)
    order, objects = np.argsort(-arrays['scores'], kind='stable'), arrays.pop('objects')
    return Matches(objects=objects, **{name: values[..., order] for name, values in arrays.items()})


def joined_errors(images: Sequence[Errors]) -> Errors:
    """Join the errors of images; positions and indices still refer to the image."""
    return Errors(**_concatenated(images))


def _concatenated(records: Sequence[Any]) -> dict[str, Array]:
    names = [field.name for field in fields(records[0])]
    return {name: np.concatenate([getattr(record, name) for record in records], axis=-1) for name in names}


def match_image(truth: Sequence[Mapping], detections: Sequence[Mapping], geometry: str, score_thr: float) -> Errors:
    """Match the objects and detections of an image; `geometry` is ``bbox`` or ``segm``.

    Both are in COCO's format; ``category_id`` is an index, and masks are encoded. `score_thr` is the lowest score of
    the detections in the confused pairs.
    """
    scores = np.array([detection['score'] for detection in detections], dtype=float)
    positions = np.argsort(-scores, kind='stable')[:100]
    detections, scores = [detections[i] for i in positions], scores[positions]
    object_positions = np.array([i for i, item in enumerate(truth) if not item.get('iscrowd')], dtype=int)
    objects, crowds = [truth[i] for i in object_positions], [item for item in truth if item.get('iscrowd')]
    classes, object_classes, crowd_classes = (
        np.array([item['category_id'] for item in side], dtype=int) for side in (detections, objects, crowds)
    )
    iou = _iou(detections, objects, geometry, False)
    same = classes[:, None] == object_classes
    iou_same, iou_other = iou * same, iou * ~same
    count = len(detections)
    types, target = np.full(count, 'background', dtype=object), np.full(count, -1)
    hit_by, free = np.full(len(objects), -1), iou_same.copy()
    for i in range(count if objects else 0):
        j = int(free[i].argmax())
        if free[i, j] >= FOREGROUND:
            types[i], target[i], hit_by[j] = HIT, j, i
            free[:, j] = 0
    in_crowd = _iou(detections, crowds, geometry, True) * (classes[:, None] == crowd_classes)
    ignored = (types != HIT) & (in_crowd.max(1, initial=0) > FOREGROUND)
    becomes_hit, fixable = np.zeros(count, dtype=bool), set()
    for i in np.flatnonzero(types != HIT).tolist() if objects else ():
        nearest, nearest_other = int(iou_same[i].argmax()), int(iou_other[i].argmax())
        if BACKGROUND <= iou_same[i, nearest] <= FOREGROUND:
            types[i], target[i] = 'localization', nearest
        elif iou_other[i, nearest_other] >= FOREGROUND:
            types[i], target[i] = 'classification', nearest_other
        elif iou_same[i, nearest] >= FOREGROUND:
            types[i], target[i] = 'duplicate', nearest
        elif iou[i].max() > BACKGROUND:
            types[i] = 'both'
        j = int(target[i])
        if types[i] in ('localization', 'classification') and hit_by[j] < 0 and j not in fixable:
            becomes_hit[i] = True
            fixable.add(j)
    missed = (hit_by < 0) & ~np.isin(np.arange(len(objects)), list(fixable))
    confused = _confused(iou, classes, object_classes, (scores >= score_thr) & ~ignored, hit_by)
    true_classes = np.append(object_classes, -1)[target]
    return Errors(
        positions, classes, scores, types, ignored, target, true_classes, becomes_hit,
        object_positions, object_classes, hit_by, missed, confused,
    )  # fmt: skip


def _confused(iou: Array, classes: Array, object_classes: Array, shown: Array, hit_by: Array) -> Array:
    """Pair hits first, then the highest overlaps; unpaired detections and objects are paired with background."""
    object_of = {i: j for j, i in enumerate(hit_by.tolist()) if i >= 0 and shown[i]}
    overlapping = np.argwhere((iou >= FOREGROUND) & shown[:, None])
    for i, j in overlapping[np.argsort(-iou[tuple(overlapping.T)], kind='stable')].tolist():
        if i not in object_of and j not in object_of.values():
            object_of[i] = j
    labels = np.append(object_classes, -1)
    pairs = [(labels[object_of.get(i, -1)], classes[i]) for i in np.flatnonzero(shown).tolist()]
    pairs += [(label, -1) for j, label in enumerate(object_classes) if j not in object_of.values()]
    return np.array(pairs, dtype=int).reshape(-1, 2).T


def _iou(detections: Sequence[Mapping], objects: Sequence[Mapping], geometry: str, crowd: bool) -> Array:
    if not detections or not objects:
        return np.zeros((len(detections), len(objects)))
    key = 'bbox' if geometry == 'bbox' else 'segmentation'
    return masks.iou([item[key] for item in detections], [item[key] for item in objects], [crowd] * len(objects))


def error_costs(errors: Errors, num_classes: int) -> dict[str, float]:
    """Return how much AP at IoU 0.5 would rise without ERRORS and ``missed``; ``AP50`` is the measured value.

    The mean is over the classes that have objects. The mean of tidecv includes classes that were only detected.
    """
    by_score = np.argsort(-errors.scores, kind='stable')
    detections = errors.classes, errors.true_classes, errors.types, ~errors.ignored, errors.becomes_hit_if_fixed
    classes, true_classes, types, kept, becomes_hit = (values[by_score] for values in detections)
    correct, counts = types == HIT, np.bincount(errors.object_classes, minlength=num_classes)
    present = np.flatnonzero(counts)

    def mean(classes: Array = classes, correct: Array = correct, kept: Array = kept, counts: Array = counts) -> float:
        values = []
        for label in present:
            hits = correct[kept & (classes == label)]
            if counts[label]:
                values.append(precision_at_recalls(np.cumsum(hits), np.cumsum(~hits), counts[label]).mean())
            elif len(hits):
                values.append(0.0)
        return float(np.mean(values)) if values else float('nan')

    measured, costs = mean(), {}
    for error in ERRORS:
        erroneous = types == error
        hits = erroneous & becomes_hit
        after = mean(np.where(hits, true_classes, classes), correct | hits, np.where(erroneous, hits, kept))
        costs[error] = max(after - measured, 0.0)
    remaining = counts - np.bincount(errors.object_classes[errors.missed], minlength=num_classes)
    costs['missed'] = max(mean(counts=remaining) - measured, 0.0)
    return dict(AP50=measured, **costs)
