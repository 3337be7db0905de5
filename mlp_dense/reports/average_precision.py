"""COCO's average precision from the matches of pycocotools, also on resampled images."""

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
    """D detections of one class in N images, by descending score, for one range of areas and T thresholds of IoU."""

    images: np.ndarray  # (D,) position of the image
    scores: np.ndarray  # (D,)
    correct: np.ndarray  # (T, D)
    counted: np.ndarray  # (T, D), False for ignored detections
    objects: np.ndarray  # (N,) number of objects per image

    def curve(self, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
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


def precision_at_recalls(true_positives: np.ndarray, false_positives: np.ndarray, total: float) -> np.ndarray:
    """Return the interpolated precision (101,) from cumulative counts (D,) of detections by descending score."""
    precision = true_positives / (true_positives + false_positives + np.spacing(1))
    precision = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)  # 0 beyond the highest recall
    return precision[np.searchsorted(true_positives / total, RECALLS)]


def as_coco(images: Sequence[Mapping], annotations: Sequence[Mapping], categories: Sequence[int]) -> COCO:
    """Return an index of objects for COCOeval; the annotations get the keys that COCOeval needs."""
    coco = COCO()
    coco.dataset = dict(images=images, annotations=annotations, categories=[dict(id=i) for i in categories])
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def match(truth: COCO, detections: Sequence[Mapping], geometry: str, categories: Sequence[int]) -> dict[tuple, Matches]:
    """Match detections with COCOeval, by (index of the class, index of the range of areas).

    Images are in the order of their ids. `geometry` is ``bbox`` or ``segm``; `detections` are results in COCO's format.
    """
    ids = sorted(truth.getImgIds())
    with contextlib.redirect_stdout(io.StringIO()):
        results = truth.loadRes(list(detections)) if detections else as_coco([], [], categories)
        evaluation = COCOeval(truth, results, geometry)
        evaluation.params.imgIds, evaluation.params.catIds = ids, list(categories)
        evaluation.evaluate()
    records = iter(evaluation.evalImgs)
    keys = [(label, area) for label in range(len(categories)) for area in range(len(AREAS))]
    return {key: _gathered([next(records) for _ in ids]) for key in keys}


def _gathered(images: Sequence[Mapping | None]) -> Matches:
    """Join COCOeval's records of all images, for one class and one range of areas."""
    records = [(i, record) for i, record in enumerate(images) if record is not None]
    objects = np.zeros(len(images), dtype=int)
    for i, record in records:
        objects[i] = np.count_nonzero(~np.asarray(record['gtIgnore'], dtype=bool))
    lengths, empty = [len(record['dtScores']) for _, record in records], np.zeros((len(THRESHOLDS), 0), dtype=bool)
    indices = np.repeat([i for i, _ in records], lengths).astype(int)
    scores = np.concatenate([np.zeros(0), *(record['dtScores'] for _, record in records)])
    matched = np.concatenate([empty, *(record['dtMatches'] > 0 for _, record in records)], axis=1)
    counted = np.concatenate([empty, *(record['dtIgnore'] == 0 for _, record in records)], axis=1)
    return Matches(indices, scores, matched & counted, counted, objects)


def merged(shards: Sequence[Matches]) -> Matches:
    """Merge the matches of consecutive images; detections are sorted as in COCOeval."""
    starts = np.cumsum([0, *(len(shard.objects) for shard in shards)])
    images = np.concatenate([shard.images + start for shard, start in zip(shards, starts, strict=False)])
    scores = np.concatenate([shard.scores for shard in shards])
    order = np.argsort(-scores, kind='stable')
    correct = np.concatenate([shard.correct for shard in shards], axis=1)[:, order]
    counted = np.concatenate([shard.counted for shard in shards], axis=1)[:, order]
    objects = np.concatenate([shard.objects for shard in shards])
    return Matches(images[order], scores[order], correct, counted, objects)


def average_precision(classes: Sequence[Matches], weights: np.ndarray | None = None) -> np.ndarray:
    """Return the average precision (C, T) of C classes, NaN for a class without objects."""
    return np.array([matches.curve(weights)[0].mean(axis=1) for matches in classes])
