"""What is wrong with each detection of an image, and which objects are missed.

The kinds of errors are those of TIDE (Bolya et al., arXiv 2008.08115, section 2.2): foreground from an IoU of 0.5 on,
background up to 0.1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as masks

from .average_precision import RECALLS

FOREGROUND, BACKGROUND = 0.5, 0.1
ERRORS = ('classification', 'localization', 'both', 'duplicate', 'background')
HIT, IGNORED = 'hit', 'ignored'


@dataclass
class Matched:
    """D detections by descending score, at most 100, and G objects of an image, without crowds."""

    positions: np.ndarray  # (D,) in what was given
    classes: np.ndarray  # (D,)
    scores: np.ndarray  # (D,)
    kinds: np.ndarray  # (D,) HIT or one of ERRORS
    ignored: np.ndarray  # (D,) in a crowd
    objects: np.ndarray  # (D,) the object that is hit or erred on, or -1
    overlaps: np.ndarray  # (D,) IoU with it, else the highest
    mends: np.ndarray  # (D,) it would be the hit of its object if the error were mended: the first one that errs on it
    object_positions: np.ndarray  # (G,) in what was given
    object_classes: np.ndarray  # (G,)
    hit_by: np.ndarray  # (G,) the detection, or -1
    missed: np.ndarray  # (G,) neither hit nor erred on
    confused: np.ndarray  # (pairs, 2): class of the object and of the detection; -1 is background


def match_image(truth: Sequence[Mapping], found: Sequence[Mapping], kind: str, score_thr: float) -> Matched:
    """Objects and detections in COCO's format, with ``class`` in place of ``category_id``; `kind` is ``bbox`` or
    ``segm``. Confused are those with a score of at least `score_thr`."""
    part = 'bbox' if kind == 'bbox' else 'rle'
    scores = np.array([each['score'] for each in found], dtype=float)
    positions = np.argsort(-scores, kind='stable')[:100]
    found, scores = [found[i] for i in positions], scores[positions]
    is_crowd = np.array([bool(each.get('iscrowd')) for each in truth], dtype=bool)
    object_positions = np.flatnonzero(~is_crowd)
    objects = [truth[i] for i in object_positions]
    crowds = [each for each, crowd in zip(truth, is_crowd, strict=True) if crowd]
    classes, object_classes = (np.array([e['class'] for e in some], dtype=int) for some in (found, objects))
    iou = _iou(found, objects, part, False)
    same = classes[:, None] == object_classes
    own, other = iou * same, iou * ~same

    count = len(found)
    kinds, target = np.full(count, 'background', dtype=object), np.full(count, -1)
    hit_by, free = np.full(len(objects), -1), own.copy()
    for i in range(count if objects else 0):
        if free[i, j := free[i].argmax()] >= FOREGROUND:
            kinds[i], target[i], hit_by[j] = HIT, j, i
            free[:, j] = 0
    inside = (_iou(found, crowds, part, True) * (classes[:, None] == [e['class'] for e in crowds])).max(1, initial=0)
    ignored = (kinds != HIT) & (inside > FOREGROUND)

    mends, first = np.zeros(count, dtype=bool), set()
    for i in np.flatnonzero(kinds != HIT) if objects else ():
        nearest, wrong = own[i].argmax(), other[i].argmax()
        if BACKGROUND <= own[i, nearest] <= FOREGROUND:
            kinds[i], target[i] = 'localization', nearest
        elif other[i, wrong] >= FOREGROUND:
            kinds[i], target[i] = 'classification', wrong
        elif own[i, nearest] >= FOREGROUND:
            kinds[i], target[i] = 'duplicate', nearest
        elif iou[i].max() > BACKGROUND:
            kinds[i] = 'both'
        if kinds[i] in ('localization', 'classification') and hit_by[j := target[i]] < 0 and j not in first:
            mends[i] = True
            first.add(j)
    missed = (hit_by < 0) & ~np.isin(np.arange(len(objects)), list(first))
    overlaps = iou.max(1, initial=0)
    overlaps[target >= 0] = iou[np.flatnonzero(target >= 0), target[target >= 0]]

    confused = _confused(iou, classes, object_classes, (scores >= score_thr) & ~ignored, kinds, target)
    return Matched(
        positions, classes, scores, kinds, ignored, target, overlaps, mends,
        object_positions, object_classes, hit_by, missed, confused,
    )  # fmt: skip


def _confused(iou, classes, object_classes, shown, kinds, target) -> np.ndarray:
    """Hits of the own class first, then what overlaps most; what is left is background."""
    hits = np.flatnonzero(shown & (kinds == HIT))
    pairs = [(object_classes[target[i]], classes[i]) for i in hits]
    left, unseen = np.flatnonzero(shown & (kinds != HIT)), np.setdiff1d(np.arange(len(object_classes)), target[hits])
    rest, paired, seen = iou[np.ix_(left, unseen)], set(), set()
    while rest.size and rest.max() >= FOREGROUND:
        i, j = np.unravel_index(rest.argmax(), rest.shape)
        pairs.append((object_classes[unseen[j]], classes[left[i]]))
        rest[i], rest[:, j] = -1, -1
        paired.add(left[i])
        seen.add(unseen[j])
    pairs += [(-1, classes[i]) for i in left if i not in paired]
    pairs += [(object_classes[j], -1) for j in unseen if j not in seen]
    return np.array(pairs, dtype=int).reshape(-1, 2)


def _iou(found: Sequence[Mapping], objects: Sequence[Mapping], part: str, crowd: bool) -> np.ndarray:
    if not found or not objects:
        return np.zeros((len(found), len(objects)))
    return masks.iou([e[part] for e in found], [e[part] for e in objects], [crowd] * len(objects))


def error_costs(images: Sequence[Matched], num_classes: int) -> dict[str, float]:
    """How much higher AP at IoU 0.5 were without each kind of error (``classification``, ..., ``missed``), and without
    all that is false (``false positives``) or missed (``false negatives``); ``AP50`` is what it is. The mean is over
    the classes that have objects (tidecv's is over those that were only detected, too)."""
    none = [np.zeros(0, dtype=int)]
    classes, scores, kinds, ignored, mends = (
        np.concatenate([*none, *(getattr(each, name) for each in images)])
        for name in ('classes', 'scores', 'kinds', 'ignored', 'mends')
    )
    mends, ignored = mends.astype(bool), ignored.astype(bool)
    mended = np.concatenate([*none, *(np.append(e.object_classes, -1)[e.objects] for e in images)])
    objects = np.concatenate([*none, *(each.object_classes for each in images)])
    missed, unhit = (
        np.concatenate([*none, *found]).astype(bool)
        for found in ([e.missed for e in images], [e.hit_by < 0 for e in images])
    )
    counts, right, kept = np.bincount(objects, minlength=num_classes), kinds == HIT, ~ignored
    present = counts > 0

    def mean(classes: np.ndarray, scores: np.ndarray, right: np.ndarray, kept: np.ndarray, counts: np.ndarray) -> float:
        values = []
        for label in np.flatnonzero(present):
            own = kept & (classes == label)
            if own.any() or counts[label]:
                values.append(_average_precision(scores[own], right[own], counts[label]))
        return float(np.mean(values)) if values else float('nan')

    now = mean(classes, scores, right, kept, counts)
    costs = {}
    for error in ERRORS:
        these = kinds == error
        after = mean(
            np.where(these & mends, mended, classes),
            scores,
            right | (these & mends),
            np.where(these, mends, kept),
            counts,
        )
        costs[error] = max(after - now, 0.0)
    fewer = counts - np.bincount(objects[missed], minlength=num_classes)
    costs['missed'] = max(mean(classes, scores, right, kept, fewer) - now, 0.0)
    costs['false positives'] = mean(classes, right.astype(float), right, kept, counts) - now
    found = counts - np.bincount(objects[unhit], minlength=num_classes)
    costs['false negatives'] = mean(classes, scores, right, kept, found) - now
    return dict(AP50=now, **costs)


def _average_precision(scores: np.ndarray, right: np.ndarray, count: int) -> float:
    if not count:
        return 0.0
    right = np.cumsum(right[np.argsort(-scores, kind='stable')])
    precision = np.maximum.accumulate((right / np.arange(1, len(right) + 1))[::-1])[::-1]
    return float(np.append(precision, 0.0)[np.searchsorted(right / count, RECALLS)].mean())
