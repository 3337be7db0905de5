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

Curve = dict[float, float]  # values by iteration


@dataclass
class Run:
    """The curves of a training: losses, learning rate, validation metrics, shares of experts, each by its name."""

    name: str
    losses: dict[str, Curve] = field(default_factory=dict)
    lr: Curve = field(default_factory=dict)
    metrics: dict[str, Curve] = field(default_factory=dict)
    shares: dict[str, Curve] = field(default_factory=dict)  # of the experts of mixtures: MODULE/NUMBER


def read_run(path: Path) -> Run:
    """Reads a work dir, a time-stamped folder in it, or a scalars.json. Of a resumed training, each later log overrides
    the earlier ones from its first iteration on.

    Raises:
        UserError: there is nothing to read, or a line is no JSON.
    """
    if not path.exists():
        raise UserError(f'{path} does not exist; give the work dir of a training, or a scalars.json.')
    files = [path] if path.is_file() else sorted(path.glob('vis_data/scalars.json'))
    files = files or sorted(path.glob('*/vis_data/scalars.json'))
    records: list[tuple[float, dict]] = []
    for file in files:
        part = _at_iterations(_read_lines(file))
        start = min((at for at, _ in part), default=math.inf)
        records = [*((at, record) for at, record in records if at < start), *part]
    if not records:
        raise UserError(f'{path} holds no scalars of a training yet (no lines in */vis_data/scalars.json).')
    in_vis_data = path.is_file() and path.resolve().parent.name == 'vis_data'
    run = Run((path.resolve().parents[2] if in_vis_data else path.resolve()).name)
    for at, record in records:
        if 'lr' in record:
            run.lr[at] = record['lr']  # of the first parameter group; `base_lr` is the config's, before --auto-scale-lr
        curves = run.losses if 'lr' in record else run.metrics
        for name, value in record.items():
            if name.startswith('expert/'):
                run.shares.setdefault(name.removeprefix('expert/'), {})[at] = value
                continue
            # COCO says -1 where there are no such objects.
            if (
                'loss' in name
                if curves is run.losses
                else name not in ('step', 'iter', 'time', 'data_time') and value != -1
            ):
                curves.setdefault(name, {})[at] = value
    return run


def plot_runs(runs: Sequence[Run], file: Path, main_metrics: Sequence[str], smooth: float = 0.0) -> None:
    """Draws the runs into a PNG: losses, learning rate, validation metrics. One run has a colour for every quantity;
    several have a colour each, a line style for every quantity, and of the metrics the main ones only, whose names end
    in one of `main_metrics`. `smooth` is the weight of the past in the moving average of the losses, below 1."""
    several = len(runs) > 1
    with_experts = not several and bool(runs[0].shares)
    figure = Figure(figsize=(11, 16 if with_experts else 12), layout='constrained')
    axes = figure.subplots(3 + with_experts, 1, sharex=True)
    losses = sorted({name for run in runs for name in run.losses}, key=lambda name: (name != 'loss', name))
    metrics = sorted({name for run in runs for name in run.metrics})
    main = [name for name in metrics if name.endswith(tuple(main_metrics))] or metrics[:1]
    metrics = main if several else main + [name for name in metrics if name not in main]
    panels = (
        ('training losses', 'loss', losses, ['loss'], ''),
        ('learning rate', 'learning rate', ['learning rate'], ['learning rate'], ''),
        ('validation', _metric_label(runs, main), metrics, main, 'o'),
    )
    for ax, (title, label, names, bold, marker) in zip(axes, panels, strict=False):
        keys = []
        for k, name in enumerate(names):
            style = dict(linewidth=2.5 if name in bold else 1.2, linestyle=STYLES[k % len(STYLES)] if several else '-')
            for i, run in enumerate(runs):
                if curve := (run.losses | {'learning rate': run.lr} | run.metrics).get(name):
                    where = dict(color=_colour(i if several else k), marker=marker, zorder=3 if name in bold else 2)
                    _plot(ax, curve, smooth * (ax is axes[0]), **where, **style)
            metric = {} if several else runs[0].metrics.get(name, {})
            text = f'{name}: {metric[max(metric)]:.3g} (last)' if metric else name
            look = dict(color='black') if several else dict(color=_colour(k), marker=marker)
            keys.append(Line2D([], [], label=text, **look, **style))
        if len(keys) > 1:
            ax.legend(handles=keys, loc='center left', bbox_to_anchor=(1.01, 0.5), frameon=False, handlelength=3)
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
    """The share of every expert: a colour for each, a line style for each mixture."""
    modules = list(dict.fromkeys(name.rpartition('/')[0] for name in shares))
    for name, curve in shares.items():
        module, _, number = name.rpartition('/')
        _plot(ax, curve, 0.0, color=_colour(int(number)), linestyle=STYLES[modules.index(module) % len(STYLES)])
    keys = [Line2D([], [], color='black', linestyle=STYLES[k % len(STYLES)], label=m) for k, m in enumerate(modules)]
    count = 1 + max(int(name.rpartition('/')[2]) for name in shares)
    keys += [Line2D([], [], color=_colour(i), linewidth=4, label=f'expert {i}') for i in range(count)]
    ax.legend(handles=keys, loc='center left', bbox_to_anchor=(1.01, 0.5), frameon=False, handlelength=3)
    ax.set(title='experts', xlabel='iteration', ylabel='share of the items')
    ax.set_ylim(bottom=0)


def _read_lines(file: Path) -> list[dict]:
    try:
        lines = file.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{file} is not a readable text file; give the work dir of a training.') from error
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(dict(json.loads(line)))
        except (ValueError, TypeError, RecursionError) as error:
            if number < len(lines):  # the last may have been cut off by the end of a process
                raise UserError(f'Line {number} of {file} is no JSON object, as mmengine writes.') from error
            break
        for name, value in records[-1].items():
            if not _is_number(value) or (name in COUNTS and not (math.isfinite(value) and value >= 0)):
                raise UserError(f'Line {number} of {file}: {name} is {str(value)[:50]!r}, not a number to draw.')
    return records


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _at_iterations(records: Sequence[dict]) -> list[tuple[float, dict]]:
    """The iteration of every record. Validation is logged at an epoch when the training counts epochs: its length is
    the shortest that agrees with every record of the training."""
    epochs = [(record['epoch'], record['iter']) for record in records if 'epoch' in record and 'iter' in record]
    length = max((math.ceil(iteration / epoch) for epoch, iteration in epochs), default=1)
    last = max(epochs, default=(0, 0))[0]
    return [
        (record.get('iter') or record['step'] * (length if record['step'] <= last else 1), record)
        for record in records
        if 'step' in record
    ]


def _plot(ax: Axes, curve: Curve, smooth: float, **style: Any) -> None:
    x = np.array(sorted(curve))
    y = np.array([curve[at] for at in x], dtype=float)
    if smooth:
        ax.plot(x, y, **style | dict(alpha=0.25, linewidth=1, linestyle='-'))
        average, weight = 0.0, 0.0
        for i, value in enumerate(y):
            if math.isfinite(value):
                average, weight = smooth * average + (1 - smooth) * value, smooth * weight + 1 - smooth
                y[i] = average / weight  # the start is not drawn towards zero
    ax.plot(x, y, **style)


def _colour(i: int) -> tuple:
    return colormaps['tab10'](i) if i < 10 else colormaps['tab20b']((i - 10) % 20)


def _metric_label(runs: Sequence[Run], main: Sequence[str]) -> str:
    highest = (max(run.metrics[name].values()) for run in runs for name in main if name in run.metrics)
    units = sorted({'percent' if value > 1 else 'from 0 to 1' for value in highest})
    return ', '.join(['metric', ' / '.join(units)]) if units else 'metric'
