"""COCO's average precision from what pycocotools matched, also of resampled images."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

AREAS = ('all', 'small', 'medium', 'large')
THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of IoU
RECALLS = np.linspace(0, 1, 101)


@dataclass
class Matches:
    """The D detections of a class by descending score, within a range of areas: of which image each is; whether it is
    right, and whether it counts, at each threshold (T, D); and how many objects each of N images has."""

    images: np.ndarray  # (D,) positions
    scores: np.ndarray  # (D,)
    right: np.ndarray  # (T, D)
    counted: np.ndarray  # (T, D)
    objects: np.ndarray  # (N,)

    def curve(self, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Precision at the recalls (T, 101), and the highest recall (T,): what COCOeval accumulates, in images that
        count `weights` times (N,); None: once. NaN: there are no objects."""
        each = np.ones(len(self.images)) if weights is None else weights[self.images]
        total = float(self.objects.sum() if weights is None else self.objects @ weights)
        if not total:
            return np.full((len(self.right), len(RECALLS)), np.nan), np.full(len(self.right), np.nan)
        right = np.cumsum(self.right * each, axis=1)
        wrong = np.cumsum((self.counted & ~self.right) * each, axis=1)
        precision = right / (right + wrong + np.spacing(1))
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        precision = np.pad(precision, ((0, 0), (0, 1)))  # 0 beyond the highest recall
        recall = right / total
        rows = [at[np.searchsorted(reached, RECALLS)] for at, reached in zip(precision, recall, strict=True)]
        return np.stack(rows), recall[:, -1] if recall.size else np.zeros(len(recall))


def as_coco(images: Sequence[Mapping], annotations: Sequence[Mapping], categories: Sequence[int]) -> COCO:
    """An index of objects, as COCOeval takes them; annotations get the keys that it needs."""
    coco = COCO()
    coco.dataset = dict(images=images, annotations=annotations, categories=[dict(id=i) for i in categories])
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def match(truth: COCO, found: Sequence[Mapping], kind: str, categories: Sequence[int]) -> dict[tuple, Matches]:
    """What COCOeval matches in the images of `truth`, in the order of their ids: by (index of the class, index of the
    area range). `kind` is ``bbox`` or ``segm``; `found` are results in COCO's format."""
    ids = sorted(truth.getImgIds())
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(list(found)) if found else as_coco([], [], categories), kind)
        evaluation.params.imgIds, evaluation.params.catIds = ids, list(categories)
        evaluation.evaluate()
    each, matches = iter(evaluation.evalImgs), {}
    for category in range(len(categories)):
        for area in range(len(AREAS)):
            matches[category, area] = _gathered([next(each) for _ in ids])
    return matches


def _gathered(images: Sequence[Mapping | None]) -> Matches:
    """One class, one range of areas."""
    found = [(i, each) for i, each in enumerate(images) if each is not None]
    objects = np.zeros(len(images), dtype=int)
    for i, each in found:
        objects[i] = np.count_nonzero(~np.asarray(each['gtIgnore'], dtype=bool))
    none = np.zeros((len(THRESHOLDS), 0), dtype=bool)
    return Matches(
        np.repeat([i for i, _ in found], [len(each['dtScores']) for _, each in found]).astype(int),
        np.array([score for _, each in found for score in each['dtScores']]),
        np.concatenate([none, *((each['dtMatches'] > 0) & (each['dtIgnore'] == 0) for _, each in found)], axis=1),
        np.concatenate([none, *(each['dtIgnore'] == 0 for _, each in found)], axis=1),
        objects,
    )


def merged(parts: Sequence[Matches]) -> Matches:
    """Of consecutive images, with the detections in the order of COCOeval."""
    starts = np.cumsum([0, *(len(part.objects) for part in parts)])
    images = np.concatenate([part.images + start for part, start in zip(parts, starts, strict=False)])
    scores = np.concatenate([part.scores for part in parts])
    order = np.argsort(-scores, kind='stable')
    right, counted = (np.concatenate([getattr(p, name) for p in parts], axis=1) for name in ('right', 'counted'))
    objects = np.concatenate([part.objects for part in parts])
    return Matches(images[order], scores[order], right[:, order], counted[:, order], objects)


def average_precision(classes: Sequence[Matches], weights: np.ndarray | None = None) -> np.ndarray:
    """(C, T), NaN for a class without objects."""
    return np.array([matches.curve(weights)[0].mean(axis=1) for matches in classes])
