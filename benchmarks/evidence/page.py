"""Writes docs/evidence.md, with its plots beside it, from the results of the parts."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the other benchmarks are

from matplotlib.figure import Figure
from tables import markdown, provenance

ROOT = Path(__file__).parents[2]
Result = dict[str, Any]

INTRODUCTION = """\
# Evidence

What this package does on real images and on GPUs. `python benchmarks/evidence/page.py` writes every table and plot from
the JSON files in [evidence](evidence), which `make evidence` makes: part by part, on a GPU none for longer than nine
minutes, and again only what is not there. A part that has not run says so.
"""
SECTIONS = {  # title, what it is, where the results of a part stand
    'tests': ('Tests on a GPU', 'The tests that need CUDA (`tests/cuda`), over all families.'),
    'operators': (
        "mmcv's operators",
        "Those of this package, in plain PyTorch, beside torchvision's and, where they are compiled, mmcv's.",
    ),
    'backbones': (
        'Backbones',
        'The smallest variant of each family beside backbones of other kinds: milliseconds of a batch, eager where '
        'nothing else is said. bf16 and fp16: weights of 16 bits in inference, automatic mixed precision (AMP) in '
        'training; tf32, fp32: products with and without TF32. / published: how often faster than the same network '
        'computed as its published code does it, / floor: times the matrix products alone, both in the first precision '
        'that has them; MB: peak memory of the call beyond the weights, and that of the published computation.',
    ),
    'detectors': ('Whole models', 'Mask R-CNN and UperNet of this package with each backbone.'),
    'camvid': (
        'Learning CamVid from random weights',
        'Semantic FPN, and UperNet, with every backbone under one recipe (`benchmarks/evidence/camvid.py`): trained on '
        'the training and the validation images with classes weighted by their share, random scale and mirror; tested '
        'on the whole test images, 11 classes, the last checkpoint. From the papers, from random weights at 480x360, '
        'trained for far longer: ENet 51.3, FC-DenseNet103 66.9, LMFFNet 69.1, LETNet 70.5 mIoU. One seed: '
        'a difference of a few points says little.',
    ),
    'coco': (
        'Learning a few images of COCO from random weights',
        'Mask R-CNN with every backbone under one recipe (`benchmarks/evidence/coco.py`): does it fit real data? AP on '
        'the training images, and in brackets on validation images, of which so few teach little.',
    ),
}


def read(folder: Path) -> dict[str, dict[str, Result]]:
    """The results of each part, by their name."""
    return {
        part: {
            file.stem: json.loads(file.read_text(encoding='utf-8')) for file in sorted((folder / part).glob('*.json'))
        }
        for part in SECTIONS
    }


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ['---', *['---:'] * (len(header) - 1)], *rows]
    return '\n'.join(f'| {" | ".join(map(str, line))} |' for line in lines)


def tests(results: dict[str, Result], _: Path) -> list[str]:
    parts = []
    for result in results.values():
        rows = [[f'`{name}`', *counts.values()] for name, counts in result['tests'].items()]
        totals = [sum(row[i] for row in rows) for i in (1, 2, 3)]
        rehearsal = '' if 'gpu' in result['environment'] else 'A rehearsal on a CPU: '
        parts += [
            rehearsal + provenance(result),
            table(['test', 'passed', 'failed', 'skipped'], [*rows, ['all', *totals]]),
        ]
    return parts


def as_they_are(results: dict[str, Result], _: Path) -> list[str]:
    return [f'**{result["title"]}**, {markdown(result)}' for result in results.values()]


def backbones(results: dict[str, Result], _: Path) -> list[str]:
    """A table for each mode, batch and size, with a column for each precision."""
    cases: dict[tuple[str, ...], dict[str, Result]] = {}
    for name, result in results.items():
        mode, precision, batch, size, device = name.split('_')
        cases.setdefault((device, mode, batch, size), {})[precision] = result
    parts = []
    for (_, mode, batch, size), own in sorted(cases.items()):
        title = 'Inference' if mode == 'forward' else 'A training step'
        parts.append(f'**{title}, batch {batch[1:]}, {size}**, {provenance(next(iter(own.values())))}')
        parts.append(backbones_table({precision: own[precision] for precision in PRECISIONS if precision in own}))
    return parts


PRECISIONS = ('bf16', 'fp16', 'tf32', 'fp32')


def backbones_table(results: dict[str, Result]) -> str:
    rows = {p: {(row['model'], row['kind']): row for row in result['rows']} for p, result in results.items()}
    compiled = any('compiled' in kind for own in rows.values() for _, kind in own)
    columns = [column for p in results for column in ([p, f'{p} compiled'] if compiled and p == 'bf16' else [p])]
    header = ['', 'GMACs', *columns, '/ published', '/ floor', 'MB', 'published MB']
    models = dict.fromkeys(row['model'] for result in results.values() for row in result['rows'])
    lines = []
    for model in models:
        kind = 'ours' if any((model, 'ours') in own for own in rows.values()) else 'peer'
        found = {p: own.get((model, kind)) for p, own in rows.items()}
        first = next(row for row in found.values() if row)
        times = []
        for column in columns:
            own = rows[column.split()[0]]
            row = own.get((model, {'ours': 'compiled', 'peer': 'compiled peer'}[kind] if ' ' in column else kind))
            times.append(f'{row["ms"]:.1f}' if row else '')
        published, floor = (first_pair(rows, model, kind, other) for other in ('published', 'floor'))
        lines.append(
            [
                model,
                f'{first["gmacs"]:.1f}',
                *times,
                f'{published[1]["ms"] / published[0]["ms"]:.2f}' if published else '',
                f'{floor[0]["ms"] / floor[1]["ms"]:.2f}' if floor else '',
                f'{first["bytes"] / 1e6:.0f}',
                f'{published[1]["bytes"] / 1e6:.0f}' if published else '',
            ]
        )
    return table(header, lines)


def first_pair(rows: dict[str, dict], model: str, *kinds: str) -> list[dict] | None:
    """Two rows of a model, in the first precision that has both."""
    pairs = ([own.get((model, kind)) for kind in kinds] for own in rows.values())
    return next((pair for pair in pairs if all(pair)), None)


HEADS = dict(camvid='Semantic FPN', camvid_upernet='UperNet', coco='Mask R-CNN')


def learning(results: dict[str, Result], page: Path) -> list[str]:
    parts = []
    for name, result in results.items():
        recipe, rows = result['recipe'], result['rows']
        metrics = list(rows[0]['last'])
        rows = sorted(rows, key=lambda row: -row['last'][metrics[0]])
        gpu = any(row['gpu_mb'] for row in rows)
        header = ['', 'parameters (M)', 'GMACs', *metrics, *(['GPU memory (MB)'] if gpu else [])]
        lines = []
        for row in rows:
            scores = [
                text(row['last'][m]) + (f' ({text(row["tested"][m])})' if 'tested' in row else '') for m in metrics
            ]
            lines.append([row['model'], row['parameters'], row['gmacs'], *scores, *([row['gpu_mb']] if gpu else [])])
        plot = page.with_name(f'evidence_{name}.png')
        draw_curves(result, metrics[0], plot)
        together = f', {recipe["jobs"]} trainings at a time on one device' if recipe['jobs'] > 1 else ''
        parts += [
            f'**{HEADS[recipe["data"]]}**',
            f'```bash\n{command(name, result)}\n```',
            f'{recipe["epochs"]} epochs of {recipe["images"]} images, {recipe["size"]}, batch {recipe["batch"]}, '
            f'{recipe["precision"]}, {recipe["heads"]} heads, seed {recipe["seed"]}{together}. {provenance(result)}',
            table(header, lines),
            f'![{metrics[0]} over the iterations]({plot.name})',
        ]
    return parts


def command(name: str, result: Result) -> str:
    """What makes the result of a training."""
    part, *_, device = name.split('_')
    recipe, size = result['recipe'], result['recipe']['size'].replace('x', ' ')
    options = f'--only {"_".join(name.split("_")[:-1])} --epochs {recipe["epochs"]} --img-scale {size}'
    options += f' --models {" ".join(row["model"] for row in result["rows"])}'
    return f'make evidence PARTS={part} DEVICE={device} ARGS="{options}"'


def text(score: float) -> str:
    return f'{score:.1f}' if score > 1 else f'{score:.3f}'


def draw_curves(result: Result, metric: str, file: Path) -> None:
    figure = Figure(figsize=(8, 5), layout='constrained')
    ax = figure.subplots()
    for i, row in enumerate(result['rows']):
        steps, values = zip(*((point['step'], point[metric]) for point in row['curve']), strict=True)
        peer = ':' not in row['model']
        ax.plot(
            steps, values, '--' if peer else '-', color=f'C{i}', marker='.', label=f'{row["model"]} {text(values[-1])}'
        )
    ax.set_xlabel('epoch' if result['recipe']['data'] == 'coco' else 'iteration')
    ax.set_ylabel(metric)
    ax.legend(fontsize=9)
    ax.grid(alpha=0.3)
    ax.spines[['top', 'right']].set_visible(False)
    figure.savefig(file, dpi=110)


def draw_costs(learned: Result, timed: Result, file: Path) -> None:
    """The first metric of every model against the time and the memory of its backbone."""
    rows = {row['model']: row for row in timed['rows'] if row['kind'] in ('ours', 'peer')}
    metric = next(iter(learned['rows'][0]['last']))
    figure = Figure(figsize=(11, 4.6), layout='constrained')
    for ax, (key, label, unit) in zip(
        figure.subplots(1, 2, sharey=True), (('ms', 'ms', 1), ('bytes', 'MB', 1e-6)), strict=True
    ):
        for row in learned['rows']:
            if cost := rows.get(row['model']):
                colour = 'tab:gray' if cost['kind'] == 'peer' else 'tab:blue'
                point = cost[key] * unit, row['last'][metric]
                ax.plot(*point, 'o', color=colour)
                ax.annotate(row['model'], point, (5, 4), textcoords='offset points', fontsize=9)
        ax.set_xlabel(f'{label} of the backbone: {timed["title"].partition(": ")[2]}, {timed["rows"][0]["case"]}')
        ax.grid(alpha=0.3)
        ax.margins(x=0.18, y=0.1)
        ax.spines[['top', 'right']].set_visible(False)
    figure.axes[0].set_ylabel(f'{metric} of {learned["recipe"]["data"]}')
    figure.savefig(file, dpi=110)


WRITERS = dict(
    tests=tests, operators=as_they_are, backbones=backbones, detectors=as_they_are, camvid=learning, coco=learning
)


def write_page(folder: Path, page: Path) -> None:
    parts, results = [INTRODUCTION], read(folder)
    for part, (title, what) in SECTIONS.items():
        parts += [f'## {title}', what]
        if not results[part] or WRITERS[part] is not learning:
            parts.append(f'```bash\nmake evidence PARTS={part}\n```')
        parts += WRITERS[part](results[part], page) if results[part] else ['Not run yet.']
    for device in ('cpu', 'cuda'):  # accuracy beside costs, where both are of one device
        learned = results['camvid'].get(f'camvid_{device}')
        timed = results['backbones'].get(f'forward_bf16_b16_800x1280_{device}')
        if learned and timed:
            plot = page.with_name(f'evidence_costs_{device}.png')
            draw_costs(learned, timed, plot)
            parts += ['## Accuracy beside costs', f'![mIoU against time and memory of the backbone]({plot.name})']
    page.write_text('\n\n'.join(part.strip() for part in parts) + '\n', encoding='utf-8')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    docs = ROOT / 'docs'
    parser.add_argument('--results', type=Path, default=docs / 'evidence', metavar='DIR', help='of the JSON files')
    parser.add_argument('--page', type=Path, default=docs / 'evidence.md', metavar='FILE', help='default: %(default)s')
    args = parser.parse_args()
    write_page(args.results, args.page)
    print(f'{args.page} is written from {args.results}.')


if __name__ == '__main__':
    main()
