"""Learning curves from the scalars that mmengine writes during a training."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..errors import UserError

STYLES = ('-', '--', ':', '-.', (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3)))
COUNTS = ('iter', 'epoch', 'step')
NOT_METRICS = ('step', 'iter', 'time', 'data_time')

Curve = dict[float, float]  # values by iteration


@dataclass
class Run:
    """Curves of a training, by name."""

    name: str
    losses: dict[str, Curve] = field(default_factory=dict)
    lr: Curve = field(default_factory=dict)
    metrics: dict[str, Curve] = field(default_factory=dict)  # of validation
    shares: dict[str, Curve] = field(default_factory=dict)  # fraction of the items per expert, by MODULE/NUMBER


def read_run(path: Path) -> Run:
    """Read the curves of a work dir, of a time-stamped folder in it, or of a scalars.json.

    Each later log of a resumed training overrides the earlier logs from its first iteration on.
    """
    if not path.exists():
        raise UserError(f'{path} does not exist; pass the work dir of a training, or a scalars.json.')
    files = [path] if path.is_file() else [*path.glob('vis_data/scalars.json')]
    files = files or sorted(path.glob('*/vis_data/scalars.json'))
    records: list[tuple[float, dict]] = []
    for file in files:
        new = _at_iterations(_read_lines(file))
        start = min((iteration for iteration, _ in new), default=math.inf)
        records = [*(record for record in records if record[0] < start), *new]
    if not records:
        raise UserError(f'{path} has no scalars (*/vis_data/scalars.json); pass the work dir of a started training.')
    root = path.resolve()
    run = Run((root.parents[2] if root.is_file() and root.parent.name == 'vis_data' else root).name)
    for iteration, record in records:
        is_training = 'lr' in record
        if is_training:
            run.lr[iteration] = record['lr']  # first parameter group; --auto-scale-lr does not change `base_lr`
        for name, value in record.items():
            if name.startswith('expert/'):
                run.shares.setdefault(name.removeprefix('expert/'), {})[iteration] = value
            elif is_training and 'loss' in name:
                run.losses.setdefault(name, {})[iteration] = value
            elif not is_training and name not in NOT_METRICS and value != -1:  # COCO's value without such objects
                run.metrics.setdefault(name, {})[iteration] = value
    return run


def plot_runs(runs: Sequence[Run], file: Path, main_metrics: Sequence[str], smooth: float = 0.0) -> None:
    """Draw losses, learning rate and validation metrics of runs into a PNG.

    One run has a colour per quantity. Several runs have a colour each and a line style per quantity, and only metrics
    with an ending in `main_metrics` are drawn. `smooth` is the weight of the past in the moving average of the losses.
    """
    several, with_experts = len(runs) > 1, len(runs) == 1 and bool(runs[0].shares)
    figure = Figure(figsize=(11, 16 if with_experts else 12), layout='constrained')
    axes = figure.subplots(3 + with_experts, 1, sharex=True)
    losses = sorted({name for run in runs for name in run.losses}, key=lambda name: (name != 'loss', name))
    metrics = sorted({name for run in runs for name in run.metrics})
    main = [name for name in metrics if name.endswith(tuple(main_metrics))] or metrics[:1]
    metrics = main if several else main + [name for name in metrics if name not in main]
    highest = (max(run.metrics[name].values()) for run in runs for name in main if name in run.metrics)
    units = ' / '.join(sorted({'percent' if value > 1 else 'from 0 to 1' for value in highest}))
    panels = (
        ('training losses', 'loss', losses, ['loss'], ''),
        ('learning rate', 'learning rate', ['learning rate'], ['learning rate'], ''),
        ('validation', f'metric, {units}' if units else 'metric', metrics, main, 'o'),
    )
    for ax, (title, label, names, bold, marker) in zip(axes, panels, strict=False):
        keys = []
        for k, name in enumerate(names):
            style: dict[str, Any] = dict(linewidth=2.5 if name in bold else 1.2, linestyle=_style(k if several else 0))
            for i, run in enumerate(runs):
                if curve := (run.losses | {'learning rate': run.lr} | run.metrics).get(name):
                    style |= dict(color=_colour(i if several else k), marker=marker)
                    _plot(ax, curve, smooth * (ax is axes[0]), zorder=3 if name in bold else 2, **style)
            metric = {} if several else runs[0].metrics.get(name, {})
            text = f'{name}: {metric[max(metric)]:.3g} (last)' if metric else name
            style |= dict(color='black', marker='') if several else dict(color=_colour(k), marker=marker)
            keys.append(Line2D([], [], label=text, **style))
        if len(keys) > 1:
            _add_legend(ax, keys)
        ax.set(title=title, xlabel='iteration', ylabel=label)
        if not ax.lines:
            ax.text(0.5, 0.5, 'nothing logged yet', transform=ax.transAxes, ha='center', va='center', color='gray')
    if with_experts:
        _plot_shares(axes[3], runs[0].shares)
    for ax in axes:
        ax.tick_params(labelbottom=True)
        ax.margins(x=0.02)
        ax.grid(alpha=0.3)
    axes[0].set_ylim(bottom=0)
    axes[1].ticklabel_format(axis='y', style='sci', scilimits=(-2, 3))
    if several:
        keys = [Line2D([], [], color=_colour(i), linewidth=4, label=run.name) for i, run in enumerate(runs)]
        figure.legend(handles=keys, loc='outside upper center', ncols=min(len(runs), 3))
    else:
        figure.suptitle(runs[0].name)
    figure.savefig(file, dpi=100)


def _plot_shares(ax: Axes, shares: dict[str, Curve]) -> None:
    """Draw the items per expert, with a colour per expert and a line style per mixture."""
    names = [name.rpartition('/')[::2] for name in shares]
    modules = list(dict.fromkeys(module for module, _ in names))
    for (module, number), curve in zip(names, shares.values(), strict=True):
        _plot(ax, curve, 0.0, color=_colour(int(number)), linestyle=_style(modules.index(module)))
    keys = [Line2D([], [], color='black', linestyle=_style(k), label=module) for k, module in enumerate(modules)]
    experts = sorted({int(number) for _, number in names})
    keys += [Line2D([], [], color=_colour(i), linewidth=4, label=f'expert {i}') for i in experts]
    _add_legend(ax, keys)
    ax.set(title='experts', xlabel='iteration', ylabel='fraction of the items')
    ax.set_ylim(bottom=0)


def _add_legend(ax: Axes, keys: list[Line2D]) -> None:
    ax.legend(handles=keys, loc='center left', bbox_to_anchor=(1.01, 0.5), frameon=False, handlelength=3)


def _read_lines(file: Path) -> list[dict]:
    try:
        lines = file.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{file} is not a readable text file; pass the work dir of a training.') from error
    records: list[dict] = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(dict(json.loads(line)))
        except (ValueError, TypeError, RecursionError) as error:
            if number < len(lines):  # a killed process may have truncated the last line
                raise UserError(f'Line {number} of {file} is not a JSON object; delete the line.') from error
            break
        for name, value in records[-1].items():
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or (name in COUNTS and not (math.isfinite(value) and value >= 0)):
                raise UserError(f'Line {number} of {file}: {name} is {str(value)[:50]!r}, not a number; delete it.')
    return records


def _at_iterations(records: Sequence[dict]) -> list[tuple[float, dict]]:
    """Return records with their iteration; validations are logged at epochs, whose length the training records tell."""
    epochs = [(record['epoch'], record['iter']) for record in records if 'epoch' in record and 'iter' in record]
    length = max((math.ceil(iteration / epoch) for epoch, iteration in epochs), default=1)
    last = max(epochs, default=(0, 0))[0]
    records = [record for record in records if 'step' in record]
    return [
        (record.get('iter') or record['step'] * (length if record['step'] <= last else 1), record) for record in records
    ]


def _plot(ax: Axes, curve: Curve, smooth: float, **style: Any) -> None:
    x, y = np.array(sorted(curve.items()), dtype=float).T
    if smooth:
        ax.plot(x, y, **style | dict(alpha=0.25, linewidth=1, linestyle='-'))
        average, weight = 0.0, 0.0
        for i, value in enumerate(y):
            if math.isfinite(value):
                average, weight = smooth * average + (1 - smooth) * value, smooth * weight + 1 - smooth
                y[i] = average / weight  # the average does not start at zero
    ax.plot(x, y, **style)


def _style(i: int) -> Any:
    return STYLES[i % len(STYLES)]


def _colour(i: int) -> tuple:
    return colormaps['tab10'](i) if i < 10 else colormaps['tab20b']((i - 10) % 20)
