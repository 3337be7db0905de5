"""Figures of the reports, and the sections that all tasks have: confusion and calibration."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .page import Column, Plot, Table

BINS = 10  # of scores, for the calibration


def confusion_sections(counts: np.ndarray, names: Sequence[str], note: str, subject: str = '') -> list[Plot | Table]:
    """Return a plot of counts (true classes, predicted classes), and a table of the most frequent confusions."""
    suffix, name = (f': {subject}', f'confusion_{subject}') if subject else ('', 'confusion')
    pairs = most_confused(counts, 50)
    rows = [[names[i], names[j], counts[i, j], counts[i, j] / counts[i].sum()] for i, j in pairs]
    fraction = Column('fraction', 'of the row of the true class', 3)
    columns = [Column('ground truth'), Column('predicted'), Column('number', '', 0), fraction]
    return [
        Plot(f'Confusion{suffix}', f'{note} Percent of a row.', name, confusion(counts, names)),
        Table(f'Most frequent confusions{suffix}', '', columns, rows),
    ]


def most_confused(counts: np.ndarray, limit: int) -> list[tuple]:
    """Return at most `limit` pairs of a true and another predicted class, the most frequent first."""
    confused = counts * (1 - np.eye(len(counts), dtype=int))
    order = np.argsort(-confused, axis=None, kind='stable')[:limit]
    return [pair for pair in zip(*np.unravel_index(order, counts.shape), strict=True) if confused[pair]]


def calibration_plot(scores: np.ndarray, correct: np.ndarray, note: str, subject: str = '') -> tuple[Plot, dict]:
    """Return a plot of the fraction of correct predictions over their score, and its values.

    The expected calibration error is that of Guo et al., arXiv 1706.04599, section 2.
    """
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    inside = [bins == i for i in range(BINS) if (bins == i).any()]
    table = np.array([(scores[i].mean(), correct[i].mean(), i.sum()) for i in inside], dtype=float).reshape(-1, 3)
    error = float((np.abs(table[:, 0] - table[:, 1]) * table[:, 2]).sum() / max(table[:, 2].sum(), 1))
    suffix, name = (f': {subject}', f'calibration_{subject}') if subject else ('', 'calibration')
    figure = lines(table[:, 0], {'measured': table[:, 1]}, 'score', 'fraction of correct predictions', diagonal=True)
    note = f'{note} On the diagonal, a score is a probability. Expected calibration error: {error:.3f}.'
    rows = [dict(score=score, right=fraction, number=int(number)) for score, fraction, number in table]
    return Plot(f'Calibration{suffix}', note, name, figure), dict(bins=rows, error=error)


def lines(x: np.ndarray, curves: Mapping[str, np.ndarray], xlabel: str, ylabel: str, diagonal: bool = False) -> Figure:
    """Draw curves; both axes are from 0 to 1."""
    figure, axes = _figure(7, 5)
    if diagonal:
        axes.plot([0, 1], [0, 1], color='0.6', linestyle='--', linewidth=1)
    for i, (name, y) in enumerate(curves.items()):
        axes.plot(x, y, label=name, color=_shade(i, len(curves)), marker='o' if len(x) < 30 else '', markersize=4)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=xlabel, ylabel=ylabel)
    axes.legend(fontsize=8)
    return figure


def confusion(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Draw counts (true classes, predicted classes), coloured by their fraction of the row."""
    fraction = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = float(np.clip(0.28 * len(names) + 2.5, 5, 24))
    figure, axes = _figure(size + 1, size)
    image = axes.imshow(fraction, cmap='Blues', vmin=0, vmax=1, aspect='auto')
    axes.grid(False)
    font = float(np.clip(300 / len(names), 4, 9))
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=font)
    axes.set_yticks(range(len(names)), names, fontsize=font)
    axes.set(xlabel='predicted', ylabel='ground truth')
    for i, j in np.argwhere(fraction >= 0.005) if len(names) <= 25 else ():
        colour, text = 'white' if fraction[i, j] > 0.5 else 'black', f'{100 * fraction[i, j]:.0f}'
        axes.text(j, i, text, ha='center', va='center', fontsize=font, color=colour)
    figure.colorbar(image, label='fraction of the row').ax.tick_params(labelsize=8)
    return figure


def scatter(panels: Mapping[str, Sequence[float]], y: Sequence[float], names: Sequence[str], ylabel: str) -> Figure:
    """Draw a panel for each quantity on the x axis."""
    figure = Figure(figsize=(4.2 * len(panels), 4), layout='constrained')
    for axes, (xlabel, x) in zip(np.ravel(figure.subplots(1, len(panels), sharey=True)), panels.items(), strict=True):
        for i, name in enumerate(names):
            axes.scatter(x[i], y[i], color=_shade(i, len(names)), zorder=2, label=name)
        axes.margins(0.2)
        axes.grid(alpha=0.3)
        axes.set_xlabel(xlabel)
    figure.axes[0].set_ylabel(ylabel)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc='outside lower center', fontsize=8)
    return figure


def intervals(names: Sequence[str], middle: np.ndarray, low: np.ndarray, high: np.ndarray, xlabel: str) -> Figure:
    """Draw differences with their intervals, coloured if the interval does not contain 0."""
    figure, axes = _figure(7, 0.9 + 0.26 * len(names))
    rows = np.arange(len(names))
    significant = (low > 0) | (high < 0)
    for mask, colour in ((significant, '#aa3377'), (~significant, '0.5')):
        error = [middle[mask] - low[mask], high[mask] - middle[mask]]
        axes.errorbar(middle[mask], rows[mask], xerr=error, fmt='o', color=colour, markersize=4, capsize=2)
    axes.axvline(0, color='black', linewidth=0.8)
    axes.set_yticks(rows, names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(xlabel)
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout='constrained')
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    return figure, axes


def _shade(i: int, count: int) -> tuple:
    return colormaps['tab10'](i) if count <= 10 else colormaps['viridis'](i / (count - 1))
