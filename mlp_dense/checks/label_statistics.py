"""Findings about the labels in label maps: classes without a pixel, ignored pixels, masks of 0 and 255."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .findings import ADD_IMAGES, Finding, listing

MAX_MAPS = 500
"""Number of label maps of a data set that are counted, evenly spread, unless all are."""

IGNORED = 255
MAX_IGNORED = 0.5  # fraction of the pixels


def count_labels(labels: np.ndarray, ignored: int) -> np.ndarray:
    """Return the number of pixels of each label (256,) in a loaded label map; `ignored` counts as 255."""
    counts = np.bincount(labels.ravel(), minlength=IGNORED + 1)[: IGNORED + 1]
    if ignored < IGNORED:
        counts[IGNORED] += counts[ignored]
        counts[ignored] = 0
    return counts


def label_findings(
    name: str, classes: Sequence[str], counts: np.ndarray, maps: int, total: int, reduced: bool
) -> Iterator[Finding]:
    """Yield the findings about the pixels of each label (256,) in `maps` of all `total` label maps of a data set."""
    if not counts.sum():
        return
    checked = 'all' if maps == total else f'the {maps} checked'
    fraction, present = counts[IGNORED] / counts.sum(), np.flatnonzero(counts[:IGNORED])
    zero = 'set reduce_zero_label=False if 0 is a class' if reduced else 'check the label maps, and ignore_index'
    if not len(present):
        severity = 'error' if name == 'train' else 'warning'
        yield Finding(severity, name, f'label maps have ignored pixels only ({checked})', maps, (), zero)
        return
    if fraction and present.tolist() == [0] and len(classes) > 1 and not reduced:
        remedy = "insert dict(type='mlp_dense.MapLabels', labels={255: 1}) after LoadAnnotations in all pipelines"
        problem = f'label maps contain 0 and 255 only, but 255 is ignored: one class is trained ({checked})'
        yield Finding('error', name, problem, maps, (), remedy)
        return
    if fraction > MAX_IGNORED:
        problem = f'label maps: {fraction:.0%} of their pixels are ignored ({checked})'
        yield Finding('warning', name, problem, maps, (), zero)
    if empty := [str(label) for i, label in enumerate(classes) if not counts[i]]:
        severity = 'warning' if maps == total and name == 'train' else 'note'
        remedy = ADD_IMAGES if maps == total else 'run `mlp-dense data check` without --fast to count all'
        yield listing(severity, name, f'classes occur in no label map ({checked})', empty, remedy)


def has_label_maps(dataset: Any) -> bool:
    """Whether a data set is one of mmsegmentation with label maps."""
    return hasattr(dataset, 'seg_map_suffix') and bool((dataset.data_prefix or {}).get('seg_map_path'))


def has_lossy_labels(dataset: Any) -> bool:
    """Whether the label maps of a data set are JPEG files."""
    return has_label_maps(dataset) and str(dataset.seg_map_suffix).lower().endswith(('.jpg', '.jpeg'))
