"""Report of a classifier."""

from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

import numpy as np

from .page import HOVER, Column, Gallery, GalleryImage, Report, Table, choose, draw_all
from .plots import calibration_plot, confusion_counts, confusion_sections
from .results import Results, Scores, read_json


class _Predictions:
    """Predictions of a test: `images` are records of ``predictions.json``, the arrays are (N,)."""

    def __init__(self, results: Results):
        self.images = read_json(results.file('predictions.json'))['images']
        index = {name: i for i, name in enumerate(results.classes)}
        top = [next(iter(image['predicted'].items())) for image in self.images]
        self.truth = np.array([index[image['class']] for image in self.images])
        self.predicted = np.array([index[name] for name, _ in top])
        self.scores = np.array([probability for _, probability in top])
        self.correct = self.truth == self.predicted


def report(results: Results, score_thr: float, max_images: int, pool: Executor, out: Path) -> Report:
    """Return the report of a test; the worst images of each class are drawn into `out`."""
    predictions, classes = _Predictions(results), list(results.classes)
    counts = confusion_counts(predictions.truth, predictions.predicted, len(classes))
    hits, of_class, as_class = np.diag(counts), counts.sum(1), counts.sum(0)
    in_five = np.array([image['class'] in image['predicted'] for image in predictions.images])
    with np.errstate(invalid='ignore'):
        top1, precision = hits / of_class, hits / as_class
        top5 = np.bincount(predictions.truth, in_five, len(classes)) / of_class
    columns = [
        Column('class', classes),
        Column('top-1', top1, 'fraction of its images with a correct prediction'),
        Column('top-5', top5, 'fraction of its images with the class among the top 5'),
        Column('precision', precision, 'fraction of the images predicted as this class that are correct'),
        Column('images', of_class),
        Column('predicted', as_class, 'images predicted as this class'),
    ]
    values = dict(top1=predictions.correct.mean(), top5=in_five.mean(), confusion=counts)
    if len(classes) <= 5:
        del columns[2], values['top5']
    note = 'Fraction of correct images by their highest probability.'
    sections = [
        Table('Classes', HOVER, columns, sort=1),
        _gallery(results, predictions, max_images, pool, out),
        *confusion_sections(counts, classes, 'Images.'),
        calibration_plot(predictions.scores, predictions.correct, note),
    ]
    return Report(results.name, results.facts(len(predictions.images)), sections, values)


def scores(results: Results, score_thr: float, pool: Executor) -> Scores:
    """Return the accuracy of each class, and which images are wrong."""
    predictions = _Predictions(results)
    files = [image['file'] for image in predictions.images]
    of_classes = partial(_accuracies, np.eye(len(results.classes))[predictions.truth], predictions.correct)
    return Scores('top-1', files, files, 1.0 - predictions.correct, of_classes)


def _accuracies(of_class: np.ndarray, correct: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    counted = of_class if weights is None else of_class * weights[:, None]
    with np.errstate(invalid='ignore'):
        return correct @ counted / counted.sum(0)


def _gallery(results: Results, predictions: _Predictions, max_images: int, pool: Executor, out: Path) -> Gallery:
    truth, predicted, correct = predictions.truth.tolist(), predictions.predicted.tolist(), predictions.correct
    errors = np.where(correct, 0.0, predictions.scores)
    wrong_classes: Sequence[set[int]] = [set() if ok else {label} for label, ok in zip(truth, correct, strict=True)]
    images = []
    for i in choose(errors, wrong_classes, max_images):
        image = predictions.images[i]
        top = ', '.join(f'{name} {100 * probability:.0f} %' for name, probability in image['predicted'].items())
        tags = [(truth[i], 'correct')] if correct[i] else [(truth[i], 'missed'), (predicted[i], 'wrongly predicted')]
        name = '/'.join(Path(image['file']).parts[-2:])
        images.append(GalleryImage(image['file'], name, f'{image["class"]}; predicted: {top}', tags))
    drawn = draw_all(images, out, pool, results.loading)
    note = f'{len(drawn)} of {len(errors)} images: the images of each class with the highest scores of a wrong class.'
    outcomes = {'missed': '#4477aa', 'wrongly predicted': '#ee3333', 'correct': '#228833'}
    return Gallery('Images', note, list(results.classes), outcomes, drawn)
