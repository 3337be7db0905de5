"""Report of a detector."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from rich.progress import track

from ..datasets.annotations import repair
from ..datasets.coco_json import read_coco
from ..errors import UserError
from . import matching
from .matching import ERRORS, HIT, Errors, Matches, joined_matches
from .page import HOVER, Column, DrawnObject, Gallery, GalleryImage, Plot, Report, Table, choose, draw_all
from .plots import calibration_plot, confusion_counts, confusion_sections, lines
from .results import Results, Scores, read_json

TITLES = dict(bbox='boxes', segm='masks')
SHARD = 250  # images per job of a process
OUTCOMES = {  # colours, and definitions of errors
    HIT: ('#228833', ''),
    'classification': ('#aa3377', 'overlaps an object of another class by 0.5 or more'),
    'localization': ('#ccbb44', 'overlaps an object of its class by 0.1 to 0.5'),
    'both': ('#997700', 'overlaps objects of other classes by 0.1 to 0.5'),
    'duplicate': ('#ee8866', 'overlaps an object of its class that another detection with a higher score hits'),
    'background': ('#ee3333', 'overlaps no object by more than 0.1'),
    'missed': ('#4477aa', 'objects without a hit that no error of classification or localization refers to'),
    'truth': ('#bbbbbb', ''),  # objects with a hit
}
CORRECT = (HIT, 'truth')


def report(results: Results, score_thr: float, max_images: int, pool: Executor, out: Path) -> Report:
    """Return the report of a test; the worst images of each class are drawn into `out`."""
    data = read_data(results)
    evaluations = [_Evaluation(results, data, geometry, score_thr, pool) for geometry in data.detections]
    sections = [section for evaluation in evaluations for section in evaluation.sections()]
    sections.insert(1, evaluations[-1].gallery(max_images, pool, out))  # masks, if there are any
    values = {evaluation.geometry: evaluation.values() for evaluation in evaluations}
    return Report(results.name, results.facts(len(data.images)), sections, values)


def scores(results: Results, score_thr: float, pool: Executor) -> Scores:
    """Return the AP of each class and the number of errors in each image, of masks if there are any."""
    data = read_data(results)
    evaluation = _Evaluation(results, data, max(data.detections), score_thr, pool)
    names = [image['file_name'] for image in data.images]
    files = [str(Path(results.images, name)) for name in names]
    of_classes = partial(matching.average_precision, [areas[0] for areas in evaluation.matches])
    return Scores(f'{evaluation.geometry} AP', names, files, np.array(evaluation.number_of_errors()), of_classes)


@dataclass
class CocoData:
    """Ground truth and detections of the tested classes; the ``category_id`` of an object is the index of its class."""

    images: list[dict]  # by id
    truth: COCO
    detections: dict[str, dict[int, list[dict]]]  # by geometry (``bbox``, ``segm``), then by image id

    def sample(self, image: Mapping, geometry: str) -> tuple[Mapping, list[dict], list[dict]]:
        """Return an image, its objects and its detections."""
        return image, self.truth.imgToAnns[image['id']], self.detections[geometry][image['id']]


def read_data(results: Results) -> CocoData:
    """Read the ground truth and the detections of a test."""
    content, classes = read_coco(Path(results.annotations)), list(results.classes)
    if not content['images']:
        raise UserError(f'{results.annotations} lists no image; restore it, and run tools/test.py with --report.')
    masks = results.file('predictions.segm.json').is_file()
    names = repair(content, classes, masks, results.crowds).names  # as the metric
    label_of = {category: classes.index(name) for category, name in names.items() if name in classes}

    def labelled(items: Sequence[Mapping]) -> Iterator[dict]:
        for item in items:
            if item['category_id'] in label_of:
                yield {**item, 'category_id': label_of[item['category_id']]}

    truth = matching.as_coco(content['images'], labelled(content['annotations']), range(len(classes)))
    detections: dict[str, dict] = {}
    for geometry in TITLES:
        file = results.file(f'predictions.{geometry}.json')
        if geometry == 'bbox' or file.is_file():
            detections[geometry] = defaultdict(list)
            for detection in labelled(read_json(file)):
                detections[geometry][detection['image_id']].append(detection)
    for annotation in truth.anns.values() if 'segm' in detections else ():
        annotation['segmentation'] = truth.annToRLE(annotation)
    return CocoData([truth.imgs[i] for i in sorted(truth.imgs)], truth, detections)


def match_all(
    data: CocoData, geometry: str, score_thr: float, pool: Executor
) -> tuple[list[list[Matches]], list[Errors]]:
    """Return the matches [class][area] and the errors of each image."""
    samples = [data.sample(image, geometry) for image in data.images]
    jobs = [samples[start : start + SHARD] for start in range(0, len(samples), SHARD)]
    work = partial(match_shard, geometry=geometry, classes=len(data.truth.cats), score_thr=score_thr)
    matches, errors = zip(*track(pool.map(work, jobs), f'matching {geometry}', len(jobs)), strict=True)
    by_class = [[joined_matches(shards) for shards in zip(*areas, strict=True)] for areas in zip(*matches, strict=True)]
    return by_class, list(chain(*errors))


def match_shard(
    samples: Sequence[tuple[Mapping, list, list]], geometry: str, classes: int, score_thr: float
) -> tuple[list[list[Matches]], list[Errors]]:
    """Match images, their objects and their detections; return COCOeval's matches [class][area] and errors per image.

    `score_thr` is the lowest score of the detections in confused pairs.
    """
    images, truth, detections = zip(*samples, strict=True)
    matches = matching.match(matching.as_coco(images, chain(*truth), range(classes)), chain(*detections), geometry)
    return matches, [matching.match_image(objects, detected, geometry, score_thr) for _, objects, detected in samples]


class _Evaluation:
    """Evaluation of the boxes or the masks of a test, for C classes and T thresholds of IoU."""

    def __init__(self, results: Results, data: CocoData, geometry: str, score_thr: float, pool: Executor):
        self.results, self.data, self.geometry, self.score_thr = results, data, geometry, score_thr
        self.classes, self.subject = list(results.classes), TITLES[geometry]
        self.matches, self.images = match_all(data, geometry, score_thr, pool)
        self.errors = matching.joined_errors(self.images)
        self.objects = [list(self._objects(i)) for i in range(len(self.images))]
        curves = [[matches.curve() for matches in areas] for areas in self.matches]
        self.precision = np.array([areas[0][0] for areas in curves])  # (C, T, recalls)
        self.ap = self.precision.mean(2)  # (C, T)
        self.ap_by_area = np.array([[curve.mean() for curve, _ in areas] for areas in curves])  # (C, areas)
        self.recall = np.array([areas[0][1].mean() for areas in curves])  # (C,)
        self.costs = matching.error_costs(self.errors, len(self.classes))
        true_labels, labels = self.errors.confused % (len(self.classes) + 1)  # -1, the background, becomes the last
        self.confusion = confusion_counts(true_labels, labels, len(self.classes) + 1)
        note = 'Fraction of hits at IoU 0.50 among the detections with a score.'
        counted = ~self.errors.ignored
        hits = self.errors.types[counted] == HIT
        self.calibration = calibration_plot(self.errors.scores[counted], hits, note, self.subject)

    def values(self) -> dict:
        """Return the values for ``report.json``."""
        mean = _mean(self.ap)
        return dict(
            AP=mean.mean(),
            AP50=mean[0],
            AP75=mean[5],
            **{f'AP_{name}': _mean(self.ap_by_area[:, i]) for i, name in enumerate(matching.AREAS) if i},
            AR=_mean(self.recall),
            errors=self.costs,
            confusion=self.confusion,
        )

    def sections(self) -> list[Table | Plot | Gallery]:
        """Return the sections of the page."""
        by_threshold = {f'IoU {iou:.2f}': _mean(self.precision[:, i]) for i, iou in enumerate(matching.THRESHOLDS)}
        confusion_note = (
            f'Detections with a score of at least {self.score_thr:g}. A detection is paired with the object of its '
            'class that it hits at IoU 0.50, else with the free object that it overlaps most, else with the background.'
        )
        return [
            self._class_table(),
            Plot(
                f'Precision over recall: {self.subject}',
                'Mean over the classes that have objects, by threshold of IoU.',
                f'precision_recall_{self.subject}',
                lines(matching.RECALLS, by_threshold, 'recall', 'precision'),
            ),
            self._error_table(),
            *confusion_sections(self.confusion, [*self.classes, 'background'], confusion_note, self.subject),
            self.calibration,
        ]

    def _class_table(self) -> Table:
        errors, count = self.errors, partial(np.bincount, minlength=len(self.classes))
        shown = (errors.scores >= self.score_thr) & ~errors.ignored
        detected, hits = count(errors.classes[shown]), count(errors.classes[shown & (errors.types == HIT)])
        objects, never_hit = count(errors.object_classes), count(errors.object_classes[errors.hit_by < 0])
        with np.errstate(invalid='ignore'):
            precision, recall = hits / detected, hits / objects
        threshold = f'with a score of at least {self.score_thr:g}'
        small, medium, large = self.ap_by_area[:, 1:].T
        columns = [
            Column('class', self.classes),
            Column('AP', self.ap.mean(1), 'average precision, mean over IoU 0.50 to 0.95'),
            Column('AP50', self.ap[:, 0], 'average precision at IoU 0.50'),
            Column('AP75', self.ap[:, 5], 'average precision at IoU 0.75'),
            Column('AP small', small, 'average precision of objects below 32 x 32 pixels'),
            Column('AP medium', medium, 'average precision of objects from 32 x 32 to 96 x 96 pixels'),
            Column('AP large', large, 'average precision of objects above 96 x 96 pixels'),
            Column('AR', self.recall, 'highest recall with 100 detections per image, mean over IoU 0.50 to 0.95'),
            Column('objects', objects, 'objects of the ground truth, without crowds'),
            Column('found', detected, f'detections {threshold}'),
            Column('precision', precision, f'fraction of the detections {threshold} that hit an object at IoU 0.50'),
            Column('recall', recall, f'fraction of the objects that a detection {threshold} hits at IoU 0.50'),
            Column('never hit', never_hit, 'objects that no detection of their class overlaps by 0.50, with any score'),
        ]
        note = f'Average precision of {self.subject} as defined by COCO. {HOVER}'
        return Table(f'Classes: {self.subject}', note, columns, sort=1)

    def _error_table(self) -> Table:
        counts = Counter(self.errors.types.tolist())
        counts['missed'] = self.errors.missed.sum()
        names = [*ERRORS, 'missed']
        note = (
            f'Rise of AP at IoU 0.50, which is {self.costs["AP50"]:.3f}, if one type of error were fixed (TIDE, arXiv '
            '2008.08115). The rises do not add up.'
        )
        columns = [
            Column('error', names),
            Column('definition', [OUTCOMES[name][1] for name in names]),
            Column('AP50 lost', [self.costs[name] for name in names]),
            Column('number', [counts[name] for name in names], 'any score'),
        ]
        return Table(f'Cost of errors: {self.subject}', note, columns)

    def gallery(self, max_images: int, pool: Executor, out: Path) -> Gallery:
        """Draw the images with most errors of each class into a folder."""
        wrong_classes = [{item.label for item in objects if item.outcome not in CORRECT} for objects in self.objects]
        images = []
        for i in choose(self.number_of_errors(), wrong_classes, max_images):
            name = self.data.images[i]['file_name']
            tags = [(item.label, item.outcome) for item in self.objects[i] if item.outcome != 'truth']
            counts = Counter(outcome for _, outcome in tags)
            caption = ', '.join(f'{number} {outcome}' for outcome, number in counts.items())
            caption, source = caption or 'no objects, no detections', str(Path(self.results.images, name))
            images.append(GalleryImage(source, name, caption, sorted(set(tags)), self.objects[i]))
        drawn = draw_all(images, out, pool, self.results.loading)
        note = (
            f'{len(drawn)} of {len(self.images)} images: the images with most errors of each class, at IoU 0.50 and a '
            f'score of at least {self.score_thr:g}. Correct objects have thin lines. Click on an image to enlarge it.'
        )
        colours = {name: colour for name, (colour, _) in OUTCOMES.items()}
        return Gallery('Images', note, self.classes, colours, drawn)

    def number_of_errors(self) -> list[int]:
        """Return the number of errors in each image."""
        return [sum(item.outcome not in CORRECT for item in objects) for objects in self.objects]

    def _objects(self, i: int) -> Iterator[DrawnObject]:
        """Yield the objects to draw in an image."""
        errors, (_, truth, detections) = self.images[i], self.data.sample(self.data.images[i], self.geometry)
        shown, is_segm = errors.scores >= self.score_thr, self.geometry == 'segm'

        def drawn(outcome: str, item: Mapping, *details: Any) -> DrawnObject:
            return DrawnObject(
                outcome, item['category_id'], item['bbox'], item['segmentation'] if is_segm else '', *details
            )

        for position, k in zip(errors.object_positions, errors.hit_by, strict=True):
            yield drawn('truth' if k >= 0 and shown[k] else 'missed', truth[position])
        for k in np.flatnonzero(shown & ~errors.ignored):
            true_label = int(errors.true_classes[k]) if errors.types[k] == 'classification' else None
            yield drawn(errors.types[k], detections[errors.positions[k]], round(float(errors.scores[k]), 3), true_label)


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the classes that have objects, NaN if no class has objects."""
    present = np.isfinite(values.reshape(len(values), -1)).all(1)
    return values[present].mean(0) if present.any() else np.full(values.shape[1:], np.nan)
