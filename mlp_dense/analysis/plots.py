"""The plots of reports, for papers too."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure


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
