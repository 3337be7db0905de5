"""Entry points: the report of one test, and the comparison of several tests."""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

import cv2

from .comparison import compare
from .page import check_folder, write_report
from .results import Results, read_results


def processes() -> ProcessPoolExecutor:
    """Start one process per CPU core, each with one thread."""
    affinity = getattr(os, 'sched_getaffinity', None)  # missing on macOS and Windows
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return ProcessPoolExecutor(cores, get_context('spawn'), cv2.setNumThreads, (1,))


def module_of(results: Results) -> ModuleType:
    """Return the module of this package that reports a task: it has the functions ``report`` and ``scores``."""
    return import_module(f'.{results.task}', __package__)


def make_report(folder: Path, score_thr: float = 0.3, max_images: int = 300) -> Path:
    """Write the page of a test from the results in its folder; return the path of ``index.html``.

    `score_thr` is the lowest score of detections that are drawn or counted in a confusion table. At most `max_images`
    images are drawn. Raises UserError if the results are missing or damaged.
    """
    results = read_results(folder)
    with processes() as pool:
        return write_report(module_of(results).report(results, score_thr, max_images, pool), folder)


def make_comparison(folders: Sequence[Path], out: Path, score_thr: float = 0.3, resamples: int = 200) -> Path:
    """Compare the tests of some reports with the first of them; return the path of ``index.html``.

    `out` is a new folder or that of an earlier comparison, `resamples` the number of bootstrap samples of the images.
    Raises UserError if the tests differ in task, classes or images, or if `out` contains other files.
    """
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    runs = [read_results(folder) for folder in folders]
    with processes() as pool:
        scores_of = partial(module_of(runs[0]).scores, score_thr=score_thr, pool=pool)
        return write_report(compare(runs, scores_of, out, resamples, pool), out)
