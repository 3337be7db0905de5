"""Comparison of several tests on the same images: differences beyond chance, and images that differ most."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from ..errors import UserError
from ..visualization.labels import distinct_names
from .gallery import Job, draw_all
from .page import Column, Gallery, Plot, Report, Table
from .plots import intervals, scatter
from .results import Results, Scores

SEED = 0  # of the bootstrap
MAX_IMAGES = 60
INTERVAL = (
    Column('from', 'lower end of the 95 % interval over images', 3),
    Column('to', 'upper end of the 95 % interval over images', 3),
)


def compare(runs: Sequence[Results], scores_of: Callable, out: Path, resamples: int, pool: Executor) -> Report:
    """Compare tests with the first of them; `scores_of` returns the Scores of a test.

    Raises UserError if the tests differ in task, classes or images.
    """
    names = distinct_names([run.name for run in runs], [run.folder for run in runs])
    _check_equal(runs, [(run.task, list(run.classes)) for run in runs], 'task or classes')
    scores = [scores_of(run) for run in runs]
    _check_equal(runs, [(run_scores.metric, list(run_scores.images)) for run_scores in scores], 'metric or images')
    metric, classes = scores[0].metric, list(runs[0].classes)
    values = np.array([run_scores.of_classes(None) for run_scores in scores])  # (runs, C)
    means = np.nanmean(values, 1)
    samples = bootstrap(scores, resamples, pool)  # (runs, resamples, C)
    sections: list = [_run_table(runs, names, metric, means, samples)]
    costs: dict[str, list[Any]] = {key: [run.model.get(key) for run in runs] for key in runs[0].model}
    if panels := {key: values for key, values in costs.items() if None not in values}:
        sections.append(Plot('Cost', '', 'cost', scatter(panels, means.tolist(), names, f'mean {metric}')))
    for i in range(1, len(runs)):
        sections += _differences(names, i, metric, classes, values, samples)
    sections += _images(scores, names, out, pool)
    facts = {'compared with': names[0], 'images': str(len(scores[0].images)), 'resamples': str(resamples)}
    by_class = [dict(zip(classes, row, strict=True)) for row in values]
    run_values = {name: dict(mean=means[i], classes=by_class[i]) for i, name in enumerate(names)}
    return Report(' | '.join(names), facts, sections, run_values)


def _check_equal(runs: Sequence[Results], keys: Sequence[tuple], name: str) -> None:
    if other := next((run for run, key in zip(runs, keys, strict=True) if key != keys[0]), None):
        raise UserError(f'{runs[0].folder} and {other.folder} differ in {name}; choose tests of the same data set.')


def bootstrap(scores: Sequence[Scores], resamples: int, pool: Executor) -> np.ndarray:
    """Return the metrics (runs, resamples, C) on the same images for all runs, drawn with replacement (Efron, 1979)."""
    count = len(scores[0].images)
    random = np.random.default_rng(SEED)
    weights = [np.bincount(random.integers(0, count, count), minlength=count) for _ in range(resamples)]
    metrics = [pool.map(run_scores.of_classes, weights, chunksize=50) for run_scores in scores]
    resampled = list(track(chain(*metrics), 'resampling', len(scores) * resamples))
    return np.array(resampled).reshape(len(scores), resamples, -1)


def interval(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the central 95 % of samples, over the first axis."""
    low, high = np.nanpercentile(samples, [2.5, 97.5], axis=0)
    return low, high


def _run_table(runs: Sequence, names: Sequence[str], metric: str, means: np.ndarray, samples: np.ndarray) -> Table:
    resampled = np.nanmean(samples, 2).T  # (resamples, runs)
    differences = np.array([means - means[0], *interval(resampled - resampled[:, :1])])
    differences[:, 0] = np.nan
    costs: dict[str, list[Any]] = {key: [run.model.get(key) for run in runs] for run in runs for key in run.model}
    rows = list(zip(names, means, *interval(resampled), *differences, *costs.values(), strict=True))
    columns = [
        Column('run'),
        Column(f'mean {metric}', '', 3),
        *INTERVAL,
        Column('difference', f'from {names[0]}', 3),
        Column('difference from', 'lower end of the 95 % interval of the difference', 3),
        Column('difference to', 'upper end of the 95 % interval of the difference', 3),
        *(Column(key, '', 2) for key in costs),
    ]
    note = (
        'Intervals contain 95 % of the resamples of the images, which are the same for all runs. A difference whose '
        'interval contains 0 may be chance on these images. The intervals do not cover the variation between trainings.'
    )
    return Table('Runs', note, columns, rows)


def _differences(
    names: Sequence[str], i: int, metric: str, classes: Sequence[str], values: np.ndarray, samples: np.ndarray
) -> list[Table | Plot]:
    difference = values[i] - values[0]
    low, high = interval(samples[i] - samples[0])
    significant = np.where((low > 0) | (high < 0), 'yes', 'no')
    columns = [
        Column('class'),
        Column(names[0], metric, 3),
        Column(names[i], metric, 3),
        Column('difference', '', 3),
        *INTERVAL,
        Column('more than chance', 'the interval does not contain 0'),
    ]
    rows = list(zip(classes, values[0], values[i], difference, low, high, significant.tolist(), strict=True))
    largest = [k for k in np.argsort(-np.abs(difference)) if np.isfinite(difference[k])][:40]
    largest_names = [classes[k] for k in largest]
    figure = intervals(largest_names, difference[largest], low[largest], high[largest], f'difference of {metric}')
    return [
        Table(f'Classes: {names[i]}', f'{metric} compared with {names[0]}.', columns, rows, sort=3),
        Plot(f'Largest differences: {names[i]}', '', f'differences_{i}', figure),
    ]


def _images(scores: Sequence[Scores], names: Sequence[str], out: Path, pool: Executor) -> list[Table | Gallery]:
    """Return the images on which the runs differ most."""
    errors = np.stack([run_scores.errors for run_scores in scores])
    spread = np.ptp(errors, axis=0)
    columns = [Column('image'), *(Column(name, 'errors', 3) for name in names), Column('spread', '', 3)]
    rows = [[name, *errors[:, i], spread[i]] for i, name in enumerate(scores[0].images) if spread[i] > 0]
    jobs = []
    for i in np.argsort(-spread, kind='stable')[: min(MAX_IMAGES, len(rows))]:
        caption = '; '.join(f'{name}: {error:.3g}' for name, error in zip(names, errors[:, i], strict=True))
        best = [(int(run), 'best run') for run in np.flatnonzero(errors[:, i] == errors[:, i].min())]
        jobs.append(Job(scores[0].files[i], scores[0].images[i], caption, best))
    drawn = draw_all(jobs, out, pool)
    note = 'Errors: wrong and missed objects, the fraction of wrong pixels, or 1 for a wrong class.'
    return [
        Gallery('Images with the largest differences', note, list(names), {'best run': '#228833'}, drawn),
        Table('Errors by image', note, columns, rows, sort=len(names) + 1),
    ]
