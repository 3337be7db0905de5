"""Why a model fails: what a test found, taken apart and shown as a page."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path


@contextmanager
def processes() -> Iterator[Executor]:
    """As many as there are cores, each with one thread."""
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context('spawn'), _one_thread) as pool:
        yield pool


def _one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)


def make_report(folder: Path, score_thr: float = 0.3, pictures: int = 300) -> Path:
    """Makes the page of a test from the results in its folder (:mod:`~mlp_dense.reports.results`).

    Args:
        folder: of the report; what an earlier one left there is replaced.
        score_thr: detection: from which score on a detection counts in tables of confusion and in pictures.
        pictures: how many images are drawn at most.

    Returns:
        Its ``index.html``.

    Raises:
        UserError: the results are absent or damaged.
    """
    from .page import write_report
    from .results import read_results

    results = read_results(folder)
    task = import_module(f'.{results.task}', __name__)
    with processes() as pool:
        return write_report(task.report(results, score_thr, pictures, pool), folder)


def make_comparison(folders: Sequence[Path], out: Path, score_thr: float = 0.3, resamples: int = 200) -> Path:
    """Compares tests with the first of them, on a page in a folder of its own.

    Args:
        folders: of their reports.
        out: an empty or new folder, or that of an earlier comparison.
        score_thr: as in :func:`make_report`.
        resamples: of the images, behind the intervals.

    Returns:
        Its ``index.html``.

    Raises:
        UserError: they are not of the same task, classes and images, or something else is in `out`.
    """
    from .comparison import compare
    from .page import check_folder, write_report

    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    with processes() as pool:
        return write_report(compare(folders, out, score_thr, resamples, pool), out)
