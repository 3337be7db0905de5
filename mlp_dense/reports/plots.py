"""Which classes are taken for which, and whether a score is a probability."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from . import plots
from .page import Plot, Table


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


def lines(x: np.ndarray, curves: Mapping[str, np.ndarray], xlabel: str, ylabel: str, diagonal: bool = False) -> Figure:
    """Curves over one axis, from 0 to 1 both."""
    figure, axes = _figure(7, 5)
    if diagonal:
        axes.plot([0, 1], [0, 1], color='0.6', linestyle='--', linewidth=1)
    for i, (name, y) in enumerate(curves.items()):
        axes.plot(x, y, label=name, color=_shade(i, len(curves)), marker='o' if len(x) < 30 else '', markersize=4)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=xlabel, ylabel=ylabel)
    axes.legend(fontsize=8)
    return figure


def bars(values: Mapping[str, float], xlabel: str, colours: Sequence[str] = ()) -> Figure:
    """Horizontal bars with their values."""
    figure, axes = _figure(7, 0.7 + 0.38 * len(values))
    drawn = axes.barh(list(values), list(values.values()), color=list(colours) or '#4477aa')
    axes.bar_label(drawn, fmt='%.3f', padding=3, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(xlabel)
    return figure


def confusion(counts: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """Counts (rows, columns), coloured by their share of the row."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = float(np.clip(0.28 * len(rows) + 2.5, 5, 24))
    figure, axes = _figure(size + 1, size)
    image = axes.imshow(share, cmap='Blues', vmin=0, vmax=1, aspect='auto')
    axes.grid(False)
    font = float(np.clip(300 / len(rows), 4, 9))
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=font)
    axes.set_yticks(range(len(rows)), rows, fontsize=font)
    axes.set(xlabel='predicted', ylabel='ground truth')
    if len(rows) <= 25:
        for (i, j), part in np.ndenumerate(share):
            if part >= 0.005:
                colour = 'white' if part > 0.5 else 'black'
                axes.text(j, i, f'{100 * part:.0f}', ha='center', va='center', fontsize=font, color=colour)
    figure.colorbar(image, label='share of the row').ax.tick_params(labelsize=8)
    return figure


def scatter(panels: Mapping[str, Sequence[float]], y: Sequence[float], names: Sequence[str], ylabel: str) -> Figure:
    """A panel for each quantity on the x axis."""
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
    """Differences with their intervals; those that do not hold 0 are coloured."""
    figure, axes = _figure(7, 0.9 + 0.26 * len(names))
    rows = np.arange(len(names))
    sure = (low > 0) | (high < 0)
    for mask, colour in ((sure, '#aa3377'), (~sure, '0.5')):
        error = [middle[mask] - low[mask], high[mask] - middle[mask]]
        axes.errorbar(middle[mask], rows[mask], xerr=error, fmt='o', color=colour, markersize=4, capsize=2)
    axes.axvline(0, color='black', linewidth=0.8)
    axes.set_yticks(rows, names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(xlabel)
    return figure


def _figure(width: float, height: float) -> tuple:
    figure = Figure(figsize=(width, height), layout='constrained')
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    return figure, axes


def _shade(i: int, count: int) -> tuple:
    from matplotlib import colormaps

    return colormaps['tab10'](i) if count <= 10 else colormaps['viridis'](i / (count - 1))
