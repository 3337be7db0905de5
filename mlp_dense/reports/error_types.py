"""Error types of detections, missed objects, and their costs, as in TIDE (arXiv 2008.08115, section 2.2)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as masks

from .average_precision import precision_at_recalls

FOREGROUND, BACKGROUND = 0.5, 0.1  # lowest and highest IoU
ERRORS = ('classification', 'localization', 'both', 'duplicate', 'background')
HIT = 'hit'
Array = np.ndarray


@dataclass
class ImageErrors:
    """D detections of an image by descending score, at most 100, and its G objects without crowds."""

    positions: np.ndarray  # (D,) position in the input
    classes: np.ndarray  # (D,)
    scores: np.ndarray  # (D,)
    types: np.ndarray  # (D,) HIT or one of ERRORS
    ignored: np.ndarray  # (D,) inside a crowd
    objects: np.ndarray  # (D,) the object that the detection hits or misplaces or misclassifies, or -1
    overlaps: np.ndarray  # (D,) IoU with this object, or the highest IoU
    becomes_hit_if_fixed: np.ndarray  # (D,) first erroneous detection of an object that has no hit
    object_positions: np.ndarray  # (G,) position in the input
    object_classes: np.ndarray  # (G,)
    hit_by: np.ndarray  # (G,) detection, or -1
    missed: np.ndarray  # (G,) without a hit, and without a detection that becomes its hit if fixed
    confused: np.ndarray  # (pairs, 2) class of the object and of the detection; -1 is background


def match_image(
    truth: Sequence[Mapping], detections: Sequence[Mapping], geometry: str, score_thr: float
) -> ImageErrors:
    """Match the objects and detections of an image; `geometry` is ``bbox`` or ``segm``.

    Both are in COCO's format with ``class`` instead of ``category_id``, and ``rle`` for masks. `score_thr` is the
    lowest score of the detections in the confused pairs.
    """
    scores = np.array([detection['score'] for detection in detections], dtype=float)
    positions = np.argsort(-scores, kind='stable')[:100]
    detections, scores = [detections[i] for i in positions], scores[positions]
    object_positions = np.array([i for i, item in enumerate(truth) if not item.get('iscrowd')], dtype=int)
    objects, crowds = [truth[i] for i in object_positions], [item for item in truth if item.get('iscrowd')]
    classes, object_classes = (np.array([item['class'] for item in side], dtype=int) for side in (detections, objects))
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
    in_crowd = _iou(detections, crowds, geometry, True) * (classes[:, None] == [crowd['class'] for crowd in crowds])
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
    confused = _confused(iou, classes, object_classes, (scores >= score_thr) & ~ignored, types, target)
    return ImageErrors(
        positions, classes, scores, types, ignored, target, overlaps, becomes_hit,
        object_positions, object_classes, hit_by, missed, confused,
    )  # fmt: skip


def _confused(iou, classes, object_classes, shown, types, target) -> np.ndarray:
    """Pair hits first, then the highest overlaps; unpaired detections and objects are paired with background."""
    hits = np.flatnonzero(shown & (types == HIT))
    pairs = [(object_classes[target[i]], classes[i]) for i in hits]
    others, unhit = np.flatnonzero(shown & (types != HIT)), np.setdiff1d(np.arange(len(object_classes)), target[hits])
    overlaps, paired, paired_objects = iou[np.ix_(others, unhit)], set(), set()
    while overlaps.size and overlaps.max() >= FOREGROUND:
        i, j = np.unravel_index(overlaps.argmax(), overlaps.shape)
        pairs.append((object_classes[unhit[j]], classes[others[i]]))
        overlaps[i], overlaps[:, j] = -1, -1
        paired.add(others[i])
        paired_objects.add(unhit[j])
    pairs += [(-1, classes[i]) for i in others if i not in paired]
    pairs += [(object_classes[j], -1) for j in unhit if j not in paired_objects]
    return np.array(pairs, dtype=int).reshape(-1, 2)


def _iou(detections: Sequence[Mapping], objects: Sequence[Mapping], geometry: str, crowd: bool) -> np.ndarray:
    if not detections or not objects:
        return np.zeros((len(detections), len(objects)))
    key = 'bbox' if geometry == 'bbox' else 'rle'
    return masks.iou([item[key] for item in detections], [item[key] for item in objects], [crowd] * len(objects))


def error_costs(images: Sequence[ImageErrors], num_classes: int) -> dict[str, float]:
    """Return how much AP at IoU 0.5 would rise without each error type; ``AP50`` is the measured value.

    The keys are ERRORS, ``missed``, and ``false positives`` and ``false negatives`` for all such errors together. The
    mean is over the classes that have objects. The mean of tidecv includes classes that were only detected.
    """

    def joined(arrays: Iterable[np.ndarray], dtype: type = int) -> np.ndarray:
        return np.concatenate([np.zeros(0, dtype), *arrays])

    by_score = np.argsort(-joined(image.scores for image in images), kind='stable')
    classes, types = (joined(getattr(image, name) for image in images)[by_score] for name in ('classes', 'types'))
    kept = joined((~image.ignored for image in images), bool)[by_score]
    becomes_hit = joined((image.becomes_hit_if_fixed for image in images), bool)[by_score]
    fixed_classes = joined(np.append(image.object_classes, -1)[image.objects] for image in images)[by_score]
    objects = joined(image.object_classes for image in images)
    missed, unhit = joined((i.missed for i in images), bool), joined((i.hit_by < 0 for i in images), bool)
    correct, counts = types == HIT, np.bincount(objects, minlength=num_classes)
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
        after = mean(np.where(hits, fixed_classes, classes), correct | hits, np.where(erroneous, hits, kept))
        costs[error] = max(after - measured, 0.0)
    costs['missed'] = max(mean(counts=counts - np.bincount(objects[missed], minlength=num_classes)) - measured, 0.0)
    costs['false positives'] = mean(kept=kept & correct) - measured
    costs['false negatives'] = mean(counts=counts - np.bincount(objects[unhit], minlength=num_classes)) - measured
    return dict(AP50=measured, **costs)
