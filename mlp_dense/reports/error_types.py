"""Error types of detections, missed objects, and their costs, as in TIDE (arXiv 2008.08115, section 2.2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from pycocotools import mask as masks

from .average_precision import precision_at_recalls

FOREGROUND, BACKGROUND = 0.5, 0.1  # lowest and highest IoU
ERRORS = ('classification', 'localization', 'both', 'duplicate', 'background')
HIT = 'hit'
Array = np.ndarray


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
    overlaps: Array  # (D,) IoU with this object, or the highest IoU
    becomes_hit_if_fixed: Array  # (D,) first erroneous detection of an object that has no hit
    object_positions: Array  # (G,) position in the input
    object_classes: Array  # (G,)
    hit_by: Array  # (G,) detection, or -1
    missed: Array  # (G,) without a hit, and without a detection that becomes its hit if fixed
    confused: Array  # (pairs, 2) class of the object and of the detection; -1 is background


def joined(images: Sequence[Errors]) -> Errors:
    """Join the errors of images; positions and indices still refer to the image."""
    names = [field.name for field in fields(Errors)]
    return Errors(**{name: np.concatenate([getattr(image, name) for image in images]) for name in names})


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
    overlaps = iou.max(1, initial=0)
    overlaps[target >= 0] = iou[np.flatnonzero(target >= 0), target[target >= 0]]
    confused = _confused(iou, classes, object_classes, (scores >= score_thr) & ~ignored, hit_by)
    true_classes = np.append(object_classes, -1)[target]
    return Errors(
        positions, classes, scores, types, ignored, target, true_classes, overlaps, becomes_hit,
        object_positions, object_classes, hit_by, missed, confused,
    )  # fmt: skip


def _confused(iou: Array, classes: Array, object_classes: Array, shown: Array, hit_by: Array) -> Array:
    """Pair hits first, then the highest overlaps; unpaired detections and objects are paired with background."""
    object_of = {i: j for j, i in enumerate(hit_by.tolist()) if i >= 0 and shown[i]}
    overlapping = np.argwhere((iou >= FOREGROUND) & shown[:, None])
    for i, j in overlapping[np.argsort(-iou[tuple(overlapping.T)], kind='stable')].tolist():
        if i not in object_of and j not in object_of.values():
            object_of[i] = j
    pairs = [
        (object_classes[object_of[i]] if i in object_of else -1, classes[i]) for i in np.flatnonzero(shown).tolist()
    ]
    pairs += [(label, -1) for j, label in enumerate(object_classes) if j not in object_of.values()]
    return np.array(pairs, dtype=int).reshape(-1, 2)


def _iou(detections: Sequence[Mapping], objects: Sequence[Mapping], geometry: str, crowd: bool) -> Array:
    if not detections or not objects:
        return np.zeros((len(detections), len(objects)))
    key = 'bbox' if geometry == 'bbox' else 'segmentation'
    return masks.iou([item[key] for item in detections], [item[key] for item in objects], [crowd] * len(objects))


def confusion_matrix(errors: Errors, num_classes: int) -> Array:
    """Return the counts (C + 1, C + 1) of true and detected classes; the last one is the background."""
    counts = np.zeros((num_classes + 1,) * 2, dtype=int)
    np.add.at(counts, tuple(errors.confused.T), 1)
    return counts


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
    found = counts - np.bincount(errors.object_classes[errors.missed], minlength=num_classes)
    costs['missed'] = max(mean(counts=found) - measured, 0.0)
    return dict(AP50=measured, **costs)
