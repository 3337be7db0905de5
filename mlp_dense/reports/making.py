"""Reports of one test, and comparisons of several tests on the same images: differences beyond chance."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from importlib import import_module
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from rich.progress import track

from ..errors import UserError
from ..outputs import replacing
from ..visualization.curves import distinct_names
from .page import Column, Gallery, GalleryImage, Report, Table, draw_all, write_report
from .results import FOLDER, Results, Scores, mean_of_classes, read_results

SEED = 0  # of the bootstrap
MAX_IMAGES = 60  # of a comparison


def processes() -> ProcessPoolExecutor:
    """Start one process per CPU core, each with one thread."""
    affinity = getattr(os, 'sched_getaffinity', None)  # missing on macOS and Windows
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return ProcessPoolExecutor(cores, get_context('spawn'), cv2.setNumThreads, (1,))


def module_of(results: Results) -> ModuleType:
    """Return the module of this package that reports a task: it has the functions ``report`` and ``scores``."""
    return import_module(f'.{results.task}', __package__)


def make_report(folder: Path, score_thr: float = 0.3, max_images: int = 300, out: Path | None = None) -> Path:
    """Write the page of a test from the results in its folder; return the path of ``index.html``.

    Args:
        folder: folder of a report of tools/test.py.
        score_thr: lowest score of detections that are drawn or counted in a confusion table.
        max_images: maximum number of images to draw.
        out: folder of the page, by default `folder`.

    Raises:
        UserError: the results are missing or damaged, or :func:`~mlp_dense.outputs.replacing` refuses the folder.
    """
    results = read_results(folder)
    out = out or folder
    with replacing(out, keep=FOLDER) as unfinished, processes() as pool:
        write_report(module_of(results).report(results, score_thr, max_images, pool, unfinished), unfinished)
    return out / 'index.html'


def make_comparison(folders: Sequence[Path], out: Path, score_thr: float = 0.3, resamples: int = 200) -> Path:
    """Compare the tests of some reports with the first of them; return the path of ``index.html``.

    `out` is a new folder or that of an earlier comparison, `resamples` the number of bootstrap samples of the images.
    Raises UserError if the tests differ in task, classes or images, or if `out` contains other files.
    """
    runs = [read_results(folder) for folder in folders]
    names = distinct_names([run.name for run in runs], folders)
    _check_equal(runs, [(run.task, run.classes) for run in runs], 'task or classes')
    with replacing(out, keep=FOLDER) as unfinished, processes() as pool:
        scores = [module_of(run).scores(run, score_thr, pool) for run in runs]
        _check_equal(runs, [(test.metric, test.images) for test in scores], 'metric or images')
        metric, count = scores[0].metric, len(scores[0].images)
        values = np.array([test.of_classes(None) for test in scores])  # (runs, C)
        samples = bootstrap(scores, resamples, pool)  # (runs, resamples, C)
        sections: list[Table | Gallery] = [
            _run_table(runs, names, metric, mean_of_classes(values), samples),
            *(_differences(names, i, metric, runs[0].classes, values, samples) for i in range(1, len(runs))),
            _images(scores, names, unfinished, pool, runs[0].loading),
        ]
        facts = {'compared with': names[0], 'images': str(count), 'resamples': str(resamples)}
        write_report(Report(' | '.join(names), facts, sections), unfinished)
    return out / 'index.html'


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


def interval(estimates: np.ndarray, samples: np.ndarray, subject: str = '') -> tuple[Column, Column]:
    """Return the columns with the ends of the central 95 % of samples, over the first axis.

    The samples are moved by the difference of their median and the estimate. A resample contains 63 % of the images on
    average, and therefore fewer of the rare classes, which changes a mean over classes.
    """
    ends = np.full((2, len(estimates)), np.nan)
    defined = np.isfinite(estimates) & np.isfinite(samples).any(0)
    quantiles = np.nanpercentile(samples[:, defined], [2.5, 50, 97.5], axis=0)
    ends[:, defined] = estimates[defined] + (quantiles[[0, 2]] - quantiles[1])
    return (
        Column(f'{subject} from'.strip(), ends[0], 'lower end of the 95 % interval over images'),
        Column(f'{subject} to'.strip(), ends[1], 'upper end of the 95 % interval over images'),
    )


def _run_table(runs: Sequence, names: Sequence[str], metric: str, means: np.ndarray, samples: np.ndarray) -> Table:
    resampled = mean_of_classes(samples).T  # (resamples, runs)
    differences = means - means[0]
    costs = {key: [run.model.get(key, np.nan) for run in runs] for run in runs for key in run.model}
    columns = [
        Column('run', names),
        Column(f'mean {metric}', means),
        *interval(means, resampled),
        Column('difference', differences, f'from {names[0]}'),
        *interval(differences, resampled - resampled[:, :1], 'difference'),
        *(Column(key, values) for key, values in costs.items()),
        Column('input', ['x'.join(map(str, run.size or ())) for run in runs], 'height x width in pixels of a batch'),
    ]
    note = (
        'Means are over the classes that occur. An interval contains the central 95 % of the resamples, moved so that '
        'their median is the value on all images. All runs use the same resamples. A difference whose interval '
        'contains 0 may be chance on these images. The intervals do not cover the variation between training runs.'
    )
    return Table('Runs', note, columns)


def _differences(
    names: Sequence[str], i: int, metric: str, classes: Sequence[str], values: np.ndarray, samples: np.ndarray
) -> Table:
    differences = values[i] - values[0]
    low, high = interval(differences, samples[i] - samples[0])
    significant = np.where((low.values > 0) | (high.values < 0), 'yes', 'no')
    columns = [
        Column('class', classes),
        Column(names[0], values[0], metric),
        Column(names[i], values[i], metric),
        Column('difference', differences),
        *(low, high),
        Column('more than chance', significant, 'the interval does not contain 0'),
    ]
    return Table(f'Classes: {names[i]}', f'{metric} compared with {names[0]}.', columns, sort=3)


def _images(
    scores: Sequence[Scores], names: Sequence[str], out: Path, pool: Executor, loading: Mapping[str, Any]
) -> Gallery:
    """Return the images on which the runs differ most."""
    errors = np.stack([run_scores.errors for run_scores in scores])
    spread = np.ptp(errors, axis=0)
    images = []
    for i in np.argsort(-spread, kind='stable')[: min(MAX_IMAGES, np.count_nonzero(spread))]:
        caption = '; '.join(f'{name}: {error:.3g}' for name, error in zip(names, errors[:, i], strict=True))
        best = [(int(run), 'best run') for run in np.flatnonzero(errors[:, i] == errors[:, i].min())]
        images.append(GalleryImage(scores[0].files[i], scores[0].images[i], caption, best))
    note = 'Errors: wrong and missed objects, the fraction of wrong pixels, or 1 for a wrong class.'
    drawn = draw_all(images, out, pool, loading)
    return Gallery('Images with the largest differences', note, list(names), {'best run': '#228833'}, drawn)
