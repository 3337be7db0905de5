"""Figures of the reports, and the sections that all tasks have: confusion and calibration."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from .page import Column, Plot, Table

BINS = 10  # of scores, for the calibration


def confusion_counts(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return how often each pair (true class, predicted class) occurs, in a table of these classes."""
    return np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


def confusion_sections(counts: np.ndarray, names: Sequence[str], note: str, subject: str = '') -> list[Plot | Table]:
    """Return a plot of counts (true classes, predicted classes), and a table of the most frequent confusions."""
    suffix, name = (f': {subject}', f'confusion_{subject}') if subject else ('', 'confusion')
    i, j = most_confused(counts, 50)
    columns = [
        Column('ground truth', np.array(names)[i]),
        Column('predicted', np.array(names)[j]),
        Column('number', counts[i, j]),
        Column('fraction', counts[i, j] / counts.sum(1)[i], 'of the row of the true class'),
    ]
    return [
        Plot(f'Confusion{suffix}', f'{note} Percent of a row.', name, confusion(counts, names)),
        Table(f'Most frequent confusions{suffix}', '', columns),
    ]


def most_confused(counts: np.ndarray, limit: int) -> tuple[np.ndarray, ...]:
    """Return the indices of at most `limit` true and other predicted classes, the most frequent confusions first."""
    confused = counts * (1 - np.eye(len(counts), dtype=int))
    order = np.argsort(-confused, axis=None, kind='stable')[:limit]
    return np.unravel_index(order[confused.flat[order] > 0], counts.shape)


def calibration_plot(scores: np.ndarray, correct: np.ndarray, note: str, subject: str = '') -> Plot:
    """Return a plot of the fraction of correct predictions over their score.

    The expected calibration error is that of Guo et al., arXiv 1706.04599, section 2.
    """
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    inside = [bins == i for i in range(BINS) if (bins == i).any()]
    table = np.array([(scores[i].mean(), correct[i].mean(), i.sum()) for i in inside], dtype=float).reshape(-1, 3)
    error = float((np.abs(table[:, 0] - table[:, 1]) * table[:, 2]).sum() / max(table[:, 2].sum(), 1))
    suffix, name = (f': {subject}', f'calibration_{subject}') if subject else ('', 'calibration')
    figure = lines(table[:, 0], {'measured': table[:, 1]}, 'score', 'fraction of correct predictions', diagonal=True)
    note = f'{note} On the diagonal, a score is a probability. Expected calibration error: {error:.3f}.'
    return Plot(f'Calibration{suffix}', note, name, figure)


def lines(x: np.ndarray, curves: Mapping[str, np.ndarray], xlabel: str, ylabel: str, diagonal: bool = False) -> Figure:
    """Draw curves; both axes are from 0 to 1."""
    figure = Figure(figsize=(7, 5), layout='constrained')
    axes = figure.subplots()
    if diagonal:
        axes.plot([0, 1], [0, 1], color='0.6', linestyle='--', linewidth=1)
    for name, y in curves.items():
        axes.plot(x, y, label=name, marker='o' if len(x) < 30 else '', markersize=4)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def confusion(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Draw counts (true classes, predicted classes), coloured by their fraction of the row."""
    fraction = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = float(np.clip(0.28 * len(names) + 2.5, 5, 24))
    figure = Figure(figsize=(size + 1, size), layout='constrained')
    axes = figure.subplots()
    image = axes.imshow(fraction, cmap='Blues', vmin=0, vmax=1, aspect='auto')
    font = float(np.clip(300 / len(names), 4, 9))
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=font)
    axes.set_yticks(range(len(names)), names, fontsize=font)
    axes.set(xlabel='predicted', ylabel='ground truth')
    for i, j in np.argwhere(fraction >= 0.005) if len(names) <= 25 else ():
        colour, text = 'white' if fraction[i, j] > 0.5 else 'black', f'{100 * fraction[i, j]:.0f}'
        axes.text(j, i, text, ha='center', va='center', fontsize=font, color=colour)
    figure.colorbar(image, label='fraction of the row').ax.tick_params(labelsize=8)
    return figure
