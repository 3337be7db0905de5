"""What the benchmarks print and write: tables, JSON and a bar chart."""

import argparse
import json
import platform
from importlib.metadata import version
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from rich.console import Console
from rich.table import Table

KINDS = {  # what it is, in short, its colour
    'ours': ('this package', '', '#1f5fa8'),
    'fused': ('mlp_dense.fuse(ours), for inference: every BatchNorm folded into the map beside it', '', '#6baed6'),
    'with_cp': ('ours with with_cp=True: the backward pass computes again what was not kept', '', '#6baed6'),
    'fp32': ('ours in fp32', '', '#b8d4ea'),
    'compiled': ('torch.compile(ours)', '', '#17a398'),
    'plain': ('the same network with the same weights and outputs, computed as published', 'as published', '#e6842a'),
    'peer': ('what a user would take instead', 'other backbones', '#9a9a9a'),
    'floor': ('the matrix products of ours and nothing else', 'matrix products alone', 'black'),
}
COLUMNS = """\
ms: median ± half the distance between the quartiles; all rows are called in turn. / floor, / ours: times as slow.
GMACs: of one picture, forward. MB: most memory in tensors during a call, beyond weights and their gradients."""


def report(rows: list[dict], name: str, notes: list[str], args: argparse.Namespace) -> None:
    """Prints the tables and writes NAME_... .json and .png into the folder ``args.out``."""
    add_ratios(rows)
    info = environment(args.device)
    work = f'{name}: {"training step" if args.train else "inference"}, batch {args.batch_size}, {args.dtype}'
    console = Console(width=120, highlight=False)
    console.print(f'\n[bold]{work}[/bold]\n{", ".join(f"{key} {value}" for key, value in info.items())}\n')
    for case in cases(rows):
        console.print(times_table([row for row in rows if row['case'] == case]))
    if any(row['kind'] == 'peer' for row in rows):
        console.print(peers_table(rows))
    for kind, (meaning, _, _) in KINDS.items():
        if any(row['kind'] == kind for row in rows):
            console.print(f'{kind:9} {meaning}')
    console.print('\n'.join([COLUMNS, *notes]))

    args.out.mkdir(parents=True, exist_ok=True)
    mode = 'train' if args.train else 'forward'
    file = args.out / f'{name}_{mode}_{args.device}_{args.dtype}_b{args.batch_size}_t{args.threads}'
    content = dict(title=work, environment=info, notes=notes, rows=rows)
    Path(f'{file}.json').write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
    machine = info.get('gpu', f'{info["cpu"]}, {args.threads} thread{"s" * (args.threads > 1)}')
    draw(rows, f'{work}\n{machine}, torch {info["torch"]}', f'{file}.png')
    print(f'{file}.json and .png are written.')


def cases(rows: list[dict]) -> list[str]:
    return list(dict.fromkeys(row['case'] for row in rows))


def environment(device: str) -> dict[str, str]:
    """The machine and the versions behind a number."""
    cpuinfo = Path('/proc/cpuinfo')
    names = [line for line in cpuinfo.read_text().splitlines() if 'model name' in line] if cpuinfo.exists() else []
    info = dict(cpu=names[0].partition(':')[2].strip() if names else platform.processor() or platform.machine())
    if device == 'cuda':
        info |= dict(gpu=torch.cuda.get_device_name(), tf32=str(torch.backends.cuda.matmul.allow_tf32))
    info |= dict(threads=str(torch.get_num_threads()), python=platform.python_version())
    return info | {package: version(package) for package in ('torch', 'mmcv', 'mmdet', 'mmsegmentation', 'mlp_dense')}


def add_ratios(rows: list[dict]) -> None:
    """Adds `over_floor`, `over_ours`, and for a peer `over`: its time as a multiple of that of each of ours."""
    times = {(row['case'], row['model'], row['kind']): row['ms'] for row in rows}
    for row in rows:
        for kind in ('floor', 'ours'):
            other = times.get((row['case'], row['model'], kind))
            row[f'over_{kind}'] = row['ms'] / other if other else None
        if row['kind'] == 'peer':
            ours = {m: ms for (case, m, kind), ms in times.items() if case == row['case'] and kind == 'ours'}
            row['over'] = {model: row['ms'] / ms for model, ms in ours.items()}


def times_table(rows: list[dict]) -> Table:
    table = Table(title=rows[0]['case'], title_justify='left', min_width=76)
    for column in ('model', 'row'):
        table.add_column(column)
    for column in ('ms', '/ floor', '/ ours', 'img/s', 'GMACs', 'MB'):
        table.add_column(column, justify='right')
    before = None
    for row in rows:
        if row['model'] != before:
            table.add_section()
        ratios = [f'{row[key]:.2f}' if row[key] else '' for key in ('over_floor', 'over_ours')]
        table.add_row(
            *('' if row['model'] == before else row['model'], row['kind']),
            *(f'{row["ms"]:.1f} ± {row["spread_ms"]:.1f}', *ratios, f'{row["img_s"]:.2f}', f'{row["gmacs"]:.1f}'),
            f'{row["bytes"] / 1e6:.0f}' if row['bytes'] else '',
        )
        before = row['model']
    return table


def peers_table(rows: list[dict]) -> Table:
    """How the peers compare with every one of ours; they do not do the same work, so the MACs stand beside it."""
    models = list(dict.fromkeys(row['model'] for row in rows if row['kind'] == 'ours'))
    table = Table(title='peer / ours: time; GMACs (time above 1: ours is faster)', title_justify='left', min_width=76)
    for column in ('', 'peer', *models):
        table.add_column(column, justify='right' if column in models else 'left')
    gmacs = {(row['case'], row['model']): row['gmacs'] for row in rows}
    for row in rows:
        if row['kind'] == 'peer':
            more = {model: row['gmacs'] / gmacs[row['case'], model] for model in models}
            cells = [f'{row["over"][model]:.2f}; {more[model]:.2f}' for model in models]
            table.add_row(row['case'], row['model'], *cells)
    return table


def draw(rows: list[dict], title: str, file: str) -> None:
    """Bars of milliseconds, one panel below the other; a black line across the bars of a model is its floor."""
    titles = cases(rows)
    figure = Figure(figsize=(11, 1.2 + 4 * len(titles)), layout='constrained')
    for ax, case in zip(figure.subplots(len(titles), 1, squeeze=False)[:, 0], titles, strict=True):
        draw_panel(ax, [row for row in rows if row['case'] == case])
        ax.set_title(case, fontsize=13)
    kinds = [kind for kind in KINDS if any(row['kind'] == kind for row in rows)]
    keys = [
        Line2D([], [], color='black', linewidth=2) if kind == 'floor' else Patch(color=KINDS[kind][2]) for kind in kinds
    ]
    figure.suptitle(title, fontsize=14)
    labels = [f'{kind} ({KINDS[kind][1]})' if KINDS[kind][1] else kind for kind in kinds]
    figure.legend(
        keys, labels, loc='outside lower center', ncols=len(kinds) if len(kinds) < 6 else 4, fontsize=12, frameon=False
    )
    figure.savefig(file, dpi=100)


def draw_panel(ax: Axes, rows: list[dict]) -> None:
    left, ticks, labels = 0.0, [], []
    for model in dict.fromkeys(row['model'] for row in rows):
        own = [row for row in rows if row['model'] == model]
        bars = [row for row in own if row['kind'] != 'floor']
        for i, row in enumerate(bars):
            ax.bar(
                left + i,
                row['ms'],
                0.9,
                color=KINDS[row['kind']][2],
                yerr=row['spread_ms'],
                ecolor='dimgray',
                capsize=3,
            )
            ax.annotate(
                f'{row["ms"]:#.3g}' if row['ms'] < 100 else f'{row["ms"]:.0f}',
                (left + i, row['ms'] + row['spread_ms']),
                (0, 3),
                textcoords='offset points',
                ha='center',
                fontsize=11,
            )
        for row in own:
            if row['kind'] == 'floor':
                ax.hlines(row['ms'], left - 0.5, left + len(bars) - 0.5, color='black', linewidth=2)
        ticks.append(left + (len(bars) - 1) / 2)
        labels.append(f'{model}\n{own[0]["gmacs"]:.1f} GMACs')
        left += len(bars) + 0.7
    ax.set_xticks(ticks, labels, fontsize=11)
    ax.tick_params(axis='x', length=0)
    ax.set_ylabel('ms', fontsize=12)
    ax.margins(x=0.02, y=0.12)
    ax.grid(axis='y', alpha=0.3)
    ax.set_axisbelow(True)
    ax.spines[['top', 'right']].set_visible(False)
