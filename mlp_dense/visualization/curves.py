"""Learning curves from the scalars that mmengine writes during a training run."""

import json
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from ..errors import UserError
from ..outputs import write_png

STYLES = ('-', '--', ':', '-.', (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3)))
NOT_METRICS = ('step', 'iter', 'time', 'data_time')

Curve = dict[float, float]  # values by iteration


@dataclass
class Run:
    """Curves of a training run, by name."""

    name: str
    losses: dict[str, Curve] = field(default_factory=dict)
    lr: Curve = field(default_factory=dict)
    metrics: dict[str, Curve] = field(default_factory=dict)  # of validation
    shares: dict[str, Curve] = field(default_factory=dict)  # fraction of the items per expert, by MODULE/NUMBER


def read_run(path: Path) -> Run:
    """Read the curves of a work dir, of a time-stamped folder in it, or of a scalars.json.

    Each later log of a resumed training run overrides the earlier logs from its first iteration on.
    """
    patterns = 'vis_data/scalars.json', '*/vis_data/scalars.json'
    files = [path] if path.is_file() else [file for pattern in patterns for file in sorted(path.glob(pattern))]
    records: list[tuple[float, dict]] = []
    for file in files:
        new = _at_iterations(_read_lines(file))
        start = min((iteration for iteration, _ in new), default=math.inf)
        records = [*(record for record in records if record[0] < start), *new]
    if not records:
        raise UserError(f'{path} does not exist or has no scalars.json; pass the work dir of a training run.')
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
    several = len(runs) > 1
    losses = sorted({name for run in runs for name in run.losses}, key=lambda name: (name != 'loss', name))
    metrics = sorted({name for run in runs for name in run.metrics})
    main = [name for name in metrics if name.endswith(tuple(main_metrics))] or metrics[:1]
    metrics = main if several else main + [name for name in metrics if name not in main]
    panels = [
        ('training losses', 'loss', losses, ['loss'], ''),
        ('learning rate', 'learning rate', ['learning rate'], ['learning rate'], ''),
        ('validation', 'metric', metrics, main, 'o'),
    ]
    if runs[0].shares and not several:
        panels.append(('experts', 'fraction of the items', list(runs[0].shares), [], ''))
    figure = Figure(figsize=(11, 4 * len(panels)), layout='constrained')
    axes = figure.subplots(len(panels), 1, sharex=True)
    for ax, (title, label, names, bold, marker) in zip(axes, panels, strict=True):
        keys = []
        for k, name in enumerate(names):
            line = STYLES[k % len(STYLES) if several else 0]
            style: dict[str, Any] = dict(linewidth=2.5 if name in bold else 1.2, linestyle=line)
            for i, run in enumerate(runs):
                if curve := (run.losses | {'learning rate': run.lr} | run.metrics | run.shares).get(name):
                    style |= dict(color=_colour(i if several else k), marker=marker)
                    _plot(ax, curve, smooth * (ax is axes[0]), zorder=3 if name in bold else 2, **style)
            metric = {} if several else runs[0].metrics.get(name, {})
            text = f'{name}: {metric[max(metric)]:.3g} (last)' if metric else name
            style |= dict(color='black', marker='') if several else dict(color=_colour(k), marker=marker)
            keys.append(Line2D([], [], label=text, **style))
        if len(keys) > 1:
            columns = math.ceil(len(keys) / 16)
            ax.legend(handles=keys, loc='center left', bbox_to_anchor=(1.01, 0.5), frameon=False, ncols=columns)
        ax.set(title=title, xlabel='iteration', ylabel=label)
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
    figure.savefig(buffer := BytesIO(), format='png', dpi=100)
    with Image.open(buffer) as image:
        write_png(file, image)


def distinct_names(names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Return the names of runs; equal names are followed by the path components in which they differ."""
    components = [path.absolute().parts for path in paths]
    start = len(os.path.commonprefix(components))
    end = len(os.path.commonprefix([path[start:][::-1] for path in components]))
    different = ['/'.join(path[start : len(path) - end]) or '.' for path in components]
    pairs = zip(names, different, strict=True)
    return [f'{name} ({where})' if names.count(name) > 1 else name for name, where in pairs]


def _read_lines(file: Path) -> list[dict]:
    """Read the objects of a file; a killed process may have truncated the last line."""
    try:
        *lines, last = file.read_text(encoding='utf-8').splitlines() or ['']
        records = [dict(json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f'{file} has lines that are not JSON objects; pass the work dir of a training run.') from error
    with suppress(ValueError, TypeError):
        records.append(dict(json.loads(last)))
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


def _colour(i: int) -> tuple:
    return colormaps['tab10'](i) if i < 10 else colormaps['tab20b']((i - 10) % 20)
