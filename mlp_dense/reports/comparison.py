"""Several models on the same images: which differences are more than chance, and which images tell them apart."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.progress import track

from ..errors import UserError
from . import classification, plots, segmentation
from .average_precision import Matches, average_precision
from .coco_results import match_all, read_data
from .error_types import HIT
from .gallery import draw_all, objects_of, shrunk
from .page import Gallery, Picture, Plot, Report, Table
from .results import Results, read_results

SEED = 0  # of the bootstrap
PICTURES = 60


@dataclass
class Scores:
    """A run: `of_classes` gives the metric of each class, from 0 to 1, for images that count so many times (N,)."""

    metric: str
    images: Sequence[str]  # N names
    files: Sequence[str]  # where they are
    errors: np.ndarray  # (N,): number of wrong objects, share of wrong pixels, or whether it is wrong
    of_classes: Callable[[np.ndarray | None], np.ndarray]


def detection_scores(results: Results, score_thr: float, pool: Executor) -> Scores:
    data = read_data(results)
    kind = max(data.found)
    found = match_all(data, kind, score_thr, pool)
    wrong = [sum(name not in (HIT, 'truth') for name, *_ in objects_of(image, score_thr)) for image in found.images]
    names = [image['file_name'] for image in data.images]
    matches = [areas[0] for areas in found.matches]
    files = [str(Path(results.images, name)) for name in names]
    return Scores(f'{kind} AP', names, files, np.array(wrong), partial(_average_precisions, matches))


def _average_precisions(matches: Sequence[Matches], weights: np.ndarray | None) -> np.ndarray:
    return average_precision(matches, weights).mean(1)


def segmentation_scores(results: Results, score_thr: float, pool: Executor) -> Scores:
    images = segmentation.read_images(results, pool)
    files = json.loads(results.file('images.json').read_text(encoding='utf-8'))
    counts = np.stack([[np.diag(i.confusion), i.confusion.sum(0), i.confusion.sum(1)] for i in images])
    names = [image.name for image in images]
    wrong = np.array([image.wrong for image in images])
    return Scores('IoU', names, [files[name] for name in names], wrong, partial(_ious, counts))


def _ious(counts: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    both, found, truth = counts.sum(0) if weights is None else np.tensordot(weights, counts, 1)
    with np.errstate(invalid='ignore'):
        return both / (found + truth - both)


def classification_scores(results: Results, score_thr: float, pool: Executor) -> Scores:
    images = classification.read_predictions(results)
    right = np.array([image['class'] == next(iter(image['predicted'])) for image in images])
    labels = np.array([list(results.classes).index(image['class']) for image in images])
    files = [image['file'] for image in images]
    own = np.eye(len(results.classes))[labels]
    return Scores('top-1', files, files, 1.0 - right, partial(_accuracies, own, right))


def _accuracies(own: np.ndarray, right: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    counted = own if weights is None else own * weights[:, None]
    with np.errstate(invalid='ignore'):
        return (counted * right[:, None]).sum(0) / counted.sum(0)


def compare(folders: Sequence[Path], out: Path, score_thr: float, resamples: int, pool: Executor) -> Report:
    """Compares tests with the first of them. UserError: they are not of the same task, classes and images."""
    runs = [read_results(folder) for folder in folders]
    names = [run.name for run in runs]
    names = names if len(set(names)) == len(names) else list(map(str, folders))
    for run, folder in zip(runs[1:], folders[1:], strict=True):
        if (run.task, list(run.classes)) != (runs[0].task, list(runs[0].classes)):
            raise UserError(f'{folders[0]} and {folder} are not of the same task and classes: compare equal tests.')
    of = dict(detection=detection_scores, segmentation=segmentation_scores, classification=classification_scores)
    scores = [of[run.task](run, score_thr, pool) for run in runs]
    for each, folder in zip(scores[1:], folders[1:], strict=True):
        if (each.metric, list(each.images)) != (scores[0].metric, list(scores[0].images)):
            raise UserError(f'{folders[0]} and {folder} are not of the same images or metric: compare equal tests.')
    metric, classes = scores[0].metric, list(runs[0].classes)
    values = np.array([each.of_classes(None) for each in scores])  # (runs, C)
    means = np.nanmean(values, 1)
    drawn = bootstrap(scores, resamples, pool)  # (runs, resamples, C)
    sections: list = [_run_table(runs, names, metric, means, drawn)]
    model = [key for key in runs[0].model if all(run.model.get(key) is not None for run in runs)]
    if model:
        panels = {key: [run.model[key] for run in runs] for key in model}
        sections.append(Plot('Cost', '', 'cost', plots.scatter(panels, means.tolist(), names, f'mean {metric}')))
    for i in range(1, len(runs)):
        sections += _differences(names, i, metric, classes, values, drawn)
    sections += _telling(scores, names, out, pool)
    facts = {'compared with': names[0], 'images': str(len(scores[0].images)), 'resamples': str(resamples)}
    numbers = {name: dict(mean=mean, classes=dict(zip(classes, row, strict=True)))
               for name, mean, row in zip(names, means, values, strict=True)}  # fmt: skip
    return Report(' | '.join(names), facts, sections, numbers)


def bootstrap(scores: Sequence[Scores], resamples: int, pool: Executor) -> np.ndarray:
    """The metric of every class (runs, resamples, C) on images that are drawn with replacement, the same for all runs
    (Efron, 1979)."""
    count = len(scores[0].images)
    random = np.random.default_rng(SEED)
    weights = [np.bincount(random.integers(0, count, count), minlength=count) for _ in range(resamples)]
    parts = [weights[i : i + 50] for i in range(0, resamples, 50)]
    jobs = [(each.of_classes, part) for each in scores for part in parts]
    done = list(track(pool.map(_resampled, jobs), 'resampling', len(jobs)))
    return np.stack([np.concatenate(done[i * len(parts) : (i + 1) * len(parts)]) for i in range(len(scores))])


def _resampled(job: tuple) -> np.ndarray:
    of_classes, weights = job
    return np.array([of_classes(each) for each in weights])


def interval(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The middle 95 % of what is drawn, over the first axis."""
    return tuple(np.nanpercentile(drawn, [2.5, 97.5], axis=0))


def _run_table(
    runs: Sequence[Results], names: Sequence[str], metric: str, means: np.ndarray, drawn: np.ndarray
) -> Table:
    resampled = np.nanmean(drawn, 2)  # (runs, resamples)
    model = list(dict.fromkeys(key for run in runs for key in run.model))
    rows = []
    for i, (run, name) in enumerate(zip(runs, names, strict=True)):
        low, high = interval(resampled[i])
        worse, better = interval(resampled[i] - resampled[0])
        difference = [means[i] - means[0], worse, better] if i else [None] * 3
        rows.append([name, means[i], low, high, *difference, *(run.model.get(key) for key in model)])
    columns = [
        ('run', '', None),
        (f'mean {metric}', '', 3),
        ('from', 'lower end of the 95 % interval over images', 3),
        ('to', 'its upper end', 3),
        ('difference', f'from {names[0]}', 3),
        ('difference from', 'lower end of its 95 % interval', 3),
        ('difference to', 'its upper end', 3),
        *((key, '', 2) for key in model),
    ]
    note = (
        'Intervals: 95 % of resamples of the images, the same for all runs. A difference whose interval holds 0 may be '
        'chance on these images; what another training would give they do not say.'
    )
    return Table('Runs', note, columns, rows)


def _differences(
    names: Sequence[str], i: int, metric: str, classes: Sequence[str], values: np.ndarray, drawn: np.ndarray
) -> list[Table | Plot]:
    difference = values[i] - values[0]
    low, high = interval(drawn[i] - drawn[0])
    sure = np.where((low > 0) | (high < 0), 'yes', 'no')
    columns = [
        ('class', '', None),
        (names[0], metric, 3),
        (names[i], metric, 3),
        ('difference', '', 3),
        ('from', 'lower end of the 95 % interval over images', 3),
        ('to', 'its upper end', 3),
        ('more than chance', 'the interval does not hold 0', None),
    ]
    rows = list(zip(classes, values[0], values[i], difference, low, high, sure.tolist(), strict=True))
    largest = [k for k in np.argsort(-np.abs(difference)) if np.isfinite(difference[k])][:40]
    figure = plots.intervals(
        [classes[k] for k in largest], difference[largest], low[largest], high[largest],
        f'difference of {metric}',
    )  # fmt: skip
    return [
        Table(f'Classes: {names[i]}', f'{metric} beside {names[0]}.', columns, rows, sort=3),
        Plot(f'Largest differences: {names[i]}', '', f'differences_{i}', figure),
    ]


def _telling(scores: Sequence[Scores], names: Sequence[str], out: Path, pool: Executor) -> list[Table | Gallery]:
    """The images that one run solves and another does not."""
    errors = np.stack([each.errors for each in scores])
    spread = errors.max(0) - errors.min(0)
    columns = [('image', '', None), *((name, 'errors', 3) for name in names), ('spread', '', 3)]
    rows = [[name, *errors[:, i], spread[i]] for i, name in enumerate(scores[0].images) if spread[i] > 0]
    jobs = []
    for i in np.argsort(-spread, kind='stable')[:PICTURES]:
        if spread[i] > 0:
            caption = '; '.join(f'{name}: {error:.3g}' for name, error in zip(names, errors[:, i], strict=True))
            best = [(int(run), 0) for run in np.flatnonzero(errors[:, i] == errors[:, i].min())]
            jobs.append((scores[0].files[i], scores[0].images[i], caption, best))
    drawn = draw_all(draw, jobs, out, pool)
    note = 'Errors: wrong and missed objects, share of wrong pixels, or 1 for a wrong class; the widest spread first.'
    return [
        Gallery('Images that tell them apart', note, list(names), [('the best run', '#228833')], drawn),
        Table('Errors by image', note, columns, rows, sort=len(names) + 1),
    ]


def draw(target: Path, job: tuple) -> Picture | None:
    """Writes the picture smaller; None: it cannot be read."""
    source, name, caption, tags = job
    if (size := shrunk(source, target)) is None:
        return None
    return Picture(f'pictures/{target.name}', name, size[1], size[0], caption, tags)
