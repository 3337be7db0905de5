"""COCO's average precision from the matches of pycocotools, also on resampled images."""

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
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


def average_precision(classes: Sequence[Matches], weights: np.ndarray | None = None) -> np.ndarray:
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
    return [[joined([_of_image(record) for record in images]) for images in areas] for areas in by_area]


def _of_image(record: Mapping | None) -> Matches:
    """Convert COCOeval's record of an image, which is None without objects and detections."""
    if record is None:
        empty = np.zeros((len(THRESHOLDS), 0), dtype=bool)
        return Matches(np.zeros(0, dtype=int), np.zeros(0), empty, empty, np.zeros(1, dtype=int))
    scores, counted = np.array(record['dtScores'], dtype=float), record['dtIgnore'] == 0
    objects = np.count_nonzero(~np.asarray(record['gtIgnore'], dtype=bool))
    images = np.zeros(len(scores), dtype=int)
    return Matches(images, scores, (record['dtMatches'] > 0) & counted, counted, np.array([objects]))


def joined(shards: Sequence[Matches]) -> Matches:
    """Join the matches of consecutive images; detections are sorted as in COCOeval."""
    starts = np.cumsum([0, *(len(shard.objects) for shard in shards)])
    images = np.concatenate([shard.images + start for shard, start in zip(shards, starts, strict=False)])
    scores, correct, counted, objects = (
        np.concatenate([getattr(shard, name) for shard in shards], axis=-1)
        for name in ('scores', 'correct', 'counted', 'objects')
    )
    order = np.argsort(-scores, kind='stable')
    return Matches(images[order], scores[order], correct[:, order], counted[:, order], objects)
