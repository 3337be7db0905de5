"""Which classes are taken for which, and whether a score is a probability."""

from collections.abc import Sequence

import numpy as np

from . import plots
from .report import Plot, Table


def confusion_sections(counts: np.ndarray, names: Sequence[str], note: str, what: str = '') -> list[Plot | Table]:
    """A plot of counts (classes of the ground truth, predicted ones), and a table of the most frequent confusions."""
    suffix, name = (f': {what}', f'confusion_{what}') if what else ('', 'confusion')
    off, rows = counts * (1 - np.eye(len(counts), dtype=int)), []
    for place in np.argsort(-off, axis=None, kind='stable')[:50]:
        i, j = np.unravel_index(place, off.shape)
        if off[i, j]:
            rows.append([names[i], names[j], int(off[i, j]), off[i, j] / counts[i].sum()])
    columns = [('ground truth', '', None), ('predicted', '', None), ('number', '', 0), ('share', 'of the row', 3)]
    return [
        Plot(f'Confusion{suffix}', f'{note} Percent of a row.', name, plots.confusion(counts, names, names)),
        Table(f'Most frequent confusions{suffix}', '', columns, rows),
    ]


def calibration_plot(scores: np.ndarray, right: np.ndarray, note: str, what: str = '') -> tuple[Plot, dict]:
    """And its numbers."""
    table, error = calibrate(scores, right)
    suffix, name = (f': {what}', f'calibration_{what}') if what else ('', 'calibration')
    figure = plots.lines(table[:, 0], {'measured': table[:, 1]}, 'score', 'share of right ones', diagonal=True)
    note = f'{note} On the diagonal a score is a probability. Expected calibration error: {error:.3f}.'
    bins = [dict(score=score, right=share, number=int(number)) for score, share, number in table]
    return Plot(f'Calibration{suffix}', note, name, figure), dict(bins=bins, error=error)


def calibrate(scores: np.ndarray, right: np.ndarray, bins: int = 10) -> tuple[np.ndarray, float]:
    """Mean score, share of right ones and number of each bin that is not empty, and the expected calibration error (Guo
    et al., arXiv 1706.04599, section 2)."""
    places = np.minimum((scores * bins).astype(int), bins - 1)
    inside = [places == i for i in range(bins) if (places == i).any()]
    table = np.array([(scores[i].mean(), right[i].mean(), i.sum()) for i in inside], dtype=float).reshape(-1, 3)
    return table, float((np.abs(table[:, 0] - table[:, 1]) * table[:, 2]).sum() / max(table[:, 2].sum(), 1))
