"""Report of a detector."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

import numpy as np

from .average_precision import AREAS, RECALLS, THRESHOLDS, Matches, average_precision
from .coco_results import CocoData, as_rle, match_all, read_data
from .error_types import ERRORS, HIT, ImageErrors, error_costs
from .gallery import Job, choose, draw_all
from .page import HOVER, Column, DrawnObject, Gallery, Plot, Report, Table
from .plots import calibration_plot, confusion_sections, lines
from .results import Results, Scores

TITLES = dict(bbox='boxes', segm='masks')
EXPLANATIONS = {
    'classification': 'overlaps an object of another class by 0.5 or more',
    'localization': 'overlaps an object of its class by 0.1 to 0.5',
    'both': 'overlaps objects of other classes by 0.1 to 0.5',
    'duplicate': 'overlaps an object of its class that another detection with a higher score hits',
    'background': 'overlaps no object by more than 0.1',
    'missed': 'objects without a hit that no error of classification or localization refers to',
    'false positives': 'all detections that hit no object',
    'false negatives': 'all objects without a hit',
}
COLOURS = {  # of hits, missed objects, error types, and objects with a hit
    HIT: '#228833',
    'missed': '#4477aa',
    'classification': '#aa3377',
    'localization': '#ccbb44',
    'both': '#997700',
    'duplicate': '#ee8866',
    'background': '#ee3333',
    'truth': '#bbbbbb',
}
CORRECT = (HIT, 'truth')


def report(results: Results, score_thr: float, max_images: int, pool: Executor) -> Report:
    """Return the report of a test; the worst images of each class are drawn."""
    data = read_data(results)
    evaluations = [_Evaluation(results, data, geometry, score_thr, pool) for geometry in sorted(data.detections)]
    sections = [section for evaluation in evaluations for section in evaluation.sections()]
    sections.insert(1, evaluations[-1].gallery(max_images, pool))  # masks, if there are any
    sections.append(evaluations[-1].never_hit())
    values = {evaluation.geometry: evaluation.values() for evaluation in evaluations}
    return Report(results.name, results.facts(len(data.images)), sections, values)


def scores(results: Results, score_thr: float, pool: Executor) -> Scores:
    """Return the AP of each class and the number of errors in each image, of masks if there are any."""
    data = read_data(results)
    evaluation = _Evaluation(results, data, max(data.detections), score_thr, pool)
    names = [image['file_name'] for image in data.images]
    files = [str(Path(results.images, name)) for name in names]
    of_classes = partial(_average_precisions, [areas[0] for areas in evaluation.matches])
    return Scores(f'{evaluation.geometry} AP', names, files, np.array(evaluation.errors()), of_classes)


def _average_precisions(matches: Sequence[Matches], weights: np.ndarray | None) -> np.ndarray:
    return average_precision(matches, weights).mean(1)


class _Evaluation:
    """Evaluation of the boxes or the masks of a test, for C classes and T thresholds of IoU."""

    def __init__(self, results: Results, data: CocoData, geometry: str, score_thr: float, pool: Executor):
        self.results, self.data, self.geometry, self.score_thr = results, data, geometry, score_thr
        self.classes, self.subject = list(results.classes), TITLES[geometry]
        self.matches, self.images = match_all(data, geometry, score_thr, pool)
        self.objects = [list(self._objects(i)) for i in range(len(self.images))]
        curves = [[matches.curve() for matches in areas] for areas in self.matches]
        self.precision = np.array([areas[0][0] for areas in curves])  # (C, T, recalls)
        self.ap = self.precision.mean(2)  # (C, T)
        self.ap_by_area = np.array([[curve.mean() for curve, _ in areas] for areas in curves])  # (C, areas)
        self.recall = np.array([areas[0][1].mean() for areas in curves])  # (C,)
        self.costs = error_costs(self.images, len(self.classes))
        self.confusion = confusion_matrix(self.images, len(self.classes))
        scores = np.concatenate([np.zeros(0), *(image.scores[~image.ignored] for image in self.images)])
        hits = np.concatenate([np.zeros(0), *(image.types[~image.ignored] == HIT for image in self.images)])
        note = 'Fraction of hits at IoU 0.50 among the detections with a score.'
        self.calibration_plot, self.calibration = calibration_plot(scores, hits, note, self.subject)

    def values(self) -> dict:
        """Return the values for ``report.json``."""
        mean = _mean(self.ap)
        return dict(
            AP=mean.mean(),
            AP50=mean[0],
            AP75=mean[5],
            **{f'AP_{name}': _mean(self.ap_by_area[:, i]) for i, name in enumerate(AREAS) if i},
            AR=_mean(self.recall),
            errors=self.costs,
            confusion=self.confusion,
            calibration=self.calibration,
            precision={name: self.precision[i, 0] for i, name in enumerate(self.classes)},
        )

    def sections(self) -> list[Table | Plot | Gallery]:
        """Return the sections of the page."""
        note = 'Mean over the classes that have objects'
        by_threshold = {f'IoU {iou:.2f}': _mean(self.precision[:, i]) for i, iou in enumerate(THRESHOLDS)}
        precision_title = f'Precision over recall: {self.subject}'
        precision_recall = lines(RECALLS, by_threshold, 'recall', 'precision')
        iou_columns = [Column('IoU', 'threshold', 2), Column('AP', 'average precision', 3)]
        confusion_note = (
            f'Detections with a score of at least {self.score_thr:g}. A detection is paired with the object of its '
            'class that it hits at IoU 0.50, otherwise with the object that it overlaps most. The remaining '
            'detections, duplicates included, are paired with the background.'
        )
        return [
            self._class_table(),
            Table(f'IoU: {self.subject}', f'{note}.', iou_columns, list(zip(THRESHOLDS, _mean(self.ap), strict=True))),
            Plot(
                precision_title, f'{note}, by threshold of IoU.', f'precision_recall_{self.subject}', precision_recall
            ),
            self._error_table(),
            *confusion_sections(self.confusion, [*self.classes, 'background'], confusion_note, self.subject),
            self.calibration_plot,
        ]

    def _class_table(self) -> Table:
        def count(labels: Iterable[np.ndarray]) -> np.ndarray:
            return np.bincount(np.concatenate([np.zeros(0, int), *labels]), minlength=len(self.classes))

        shown = [(image.scores >= self.score_thr) & ~image.ignored for image in self.images]
        pairs = list(zip(self.images, shown, strict=True))
        detected = count(image.classes[mask] for image, mask in pairs)
        hits = count(image.classes[mask & (image.types == HIT)] for image, mask in pairs)
        objects = count(image.object_classes for image in self.images)
        never_hit = count(image.object_classes[image.hit_by < 0] for image in self.images)
        with np.errstate(invalid='ignore'):
            precision, recall = hits / detected, hits / objects
        ap = self.ap.mean(1), self.ap[:, 0], self.ap[:, 5], *self.ap_by_area[:, 1:].T
        rows = zip(self.classes, *ap, self.recall, objects, detected, precision, recall, never_hit, strict=True)
        threshold = f'with a score of at least {self.score_thr:g}'
        columns = [
            Column('class'),
            Column('AP', 'average precision, mean over IoU 0.50 to 0.95', 3),
            Column('AP50', 'average precision at IoU 0.50', 3),
            Column('AP75', 'average precision at IoU 0.75', 3),
            Column('AP small', 'average precision of objects below 32 x 32 pixels', 3),
            Column('AP medium', 'average precision of objects from 32 x 32 to 96 x 96 pixels', 3),
            Column('AP large', 'average precision of objects above 96 x 96 pixels', 3),
            Column('AR', 'highest recall with 100 detections per image, mean over IoU 0.50 to 0.95', 3),
            Column('objects', 'objects of the ground truth, without crowds', 0),
            Column('found', f'detections {threshold}', 0),
            Column('precision', f'fraction of the detections {threshold} that hit an object at IoU 0.50', 3),
            Column('recall', f'fraction of the objects that a detection {threshold} hits at IoU 0.50', 3),
            Column('never hit', 'objects that no detection of their class overlaps by 0.50, with any score', 0),
        ]
        note = f'Average precision of {self.subject} as defined by COCO. {HOVER}'
        return Table(f'Classes: {self.subject}', note, columns, list(rows), sort=1)

    def _error_table(self) -> Table:
        counts = Counter(name for image in self.images for name in image.types.tolist())
        counts['missed'] = sum(int(image.missed.sum()) for image in self.images)
        counts['false positives'] = sum(counts[name] for name in ERRORS)
        counts['false negatives'] = sum(int((image.hit_by < 0).sum()) for image in self.images)
        note = (
            f'Rise of AP at IoU 0.50, which is {self.costs["AP50"]:.3f}, if one type of error were fixed (TIDE, arXiv '
            '2008.08115). The rises do not add up.'
        )
        columns = [Column('error'), Column('definition'), Column('AP50 lost', '', 3), Column('number', 'any score', 0)]
        rows = [[name, text, self.costs[name], counts[name]] for name, text in EXPLANATIONS.items()]
        return Table(f'Cost of errors: {self.subject}', note, columns, rows)

    def never_hit(self) -> Table:
        """Return the table of the objects that no detection of their class hits."""
        rows = []
        for image, record in zip(self.images, self.data.images, strict=True):
            for j in np.flatnonzero(image.hit_by < 0):
                box = self.data.truth[record['id']][image.object_positions[j]]['bbox']
                best = image.overlaps[image.objects == j].max(initial=0)
                rows.append([self.classes[image.object_classes[j]], record['file_name'], *box[2:], best])
        columns = [
            Column('class'),
            Column('image'),
            Column('width', 'pixels', 0),
            Column('height', 'pixels', 0),
            Column('best IoU', 'with an inexact or misclassified detection', 2),
        ]
        note = 'Objects that no detection of their class overlaps by 0.50. No threshold of the score finds them.'
        return Table('Objects missed by every threshold', note, columns, rows)

    def gallery(self, max_images: int, pool: Executor) -> Gallery:
        """Draw the images with most errors of each class."""
        wrong_classes = [{item.label for item, _ in objects if item.outcome not in CORRECT} for objects in self.objects]
        jobs = []
        for i in choose(self.errors(), wrong_classes, max_images):
            record, objects = self.data.images[i], self.objects[i]
            name, size, is_segm = record['file_name'], (record['height'], record['width']), self.geometry == 'segm'
            masks = [as_rle(source['segmentation'], *size) for _, source in objects] if is_segm else []
            tags = [(item.label, item.outcome) for item, _ in objects if item.outcome != 'truth']
            counts = Counter(outcome for _, outcome in tags)
            caption = ', '.join(f'{number} {outcome}' for outcome, number in counts.items())
            caption, file = caption or 'no objects, no detections', str(Path(self.results.images, name))
            jobs.append(Job(file, name, caption, sorted(set(tags)), [item for item, _ in objects], masks))
        drawn = draw_all(jobs, self.results.folder, pool)
        note = (
            f'{len(drawn)} of {len(self.images)} images: the images with most errors of each class, at IoU 0.50 and a '
            f'score of at least {self.score_thr:g}. Correct objects have thin lines. Click on an image to enlarge it.'
        )
        return Gallery('Images', note, self.classes, COLOURS, drawn)

    def errors(self) -> list[int]:
        """Return the number of errors in each image."""
        return [sum(item.outcome not in CORRECT for item, _ in objects) for objects in self.objects]

    def _objects(self, i: int) -> Iterator[tuple[DrawnObject, Mapping]]:
        """Yield the objects to draw in an image, each with its annotation or detection."""
        image, image_id = self.images[i], self.data.images[i]['id']
        truth, detections = self.data.truth.get(image_id, []), self.data.detections[self.geometry].get(image_id, [])
        shown = image.scores >= self.score_thr
        for j, label in enumerate(image.object_classes.tolist()):
            is_hit = image.hit_by[j] >= 0 and shown[image.hit_by[j]]
            record = truth[image.object_positions[j]]
            yield DrawnObject('truth' if is_hit else 'missed', label, record['bbox']), record
        for k in np.flatnonzero(shown & ~image.ignored):
            record, outcome = detections[image.positions[k]], image.types[k]
            true_label = int(image.object_classes[image.objects[k]]) if outcome == 'classification' else None
            score, overlap = round(float(image.scores[k]), 3), round(float(image.overlaps[k]), 3)
            yield DrawnObject(outcome, int(image.classes[k]), record['bbox'], score, overlap, true_label), record


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the classes that have objects, NaN if no class has objects."""
    present = np.isfinite(values.reshape(len(values), -1)).all(1)
    return values[present].mean(0) if present.any() else np.full(values.shape[1:], np.nan)


def confusion_matrix(images: Sequence[ImageErrors], num_classes: int) -> np.ndarray:
    """Return the counts (C + 1, C + 1) of true and detected classes; the last one is the background."""
    table = np.zeros((num_classes + 1,) * 2, dtype=int)
    for image in images:
        np.add.at(table, (image.confused[:, 0], image.confused[:, 1]), 1)
    return table
