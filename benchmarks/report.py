"""Tables and charts of the benchmarks. As a script: writes the tables of docs/performance.md from the results.

In the page, the text between `<!-- table -->` and `<!-- end -->` is the result of the command in the block above it. A
table whose command has no result stays unchanged.
"""

import argparse
import json
import platform
import re
import shlex
import shutil
import sys
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mlp_dense import operators
from mlp_dense.training.machine import versions

ROOT = Path(__file__).parents[1]
RESULTS = Path('work_dirs/benchmarks')
TABLE = re.compile(r'(?<=```bash\n)(?P<command>[^\n]+)\n```\n\n<!-- table -->\n(?P<text>.*?)<!-- end -->', re.DOTALL)
VARIANTS = {  # meaning, colour
    'ours': ('this package', '#1f5fa8'),
    'reference': ("ours with kernels.use('reference'), in plain PyTorch", '#9ecae1'),
    'fused': ('mlp_dense.fuse(ours): BatchNorms folded into the neighbouring layers', '#6baed6'),
    'with_cp': ('with_cp=True: the backward pass recomputes the blocks', '#6baed6'),
    'fp32': ('ours in fp32', '#b8d4ea'),
    'compiled': ('torch.compile(ours)', '#17a398'),
    'bf16': ('ours in bf16', '#b8d4ea'),
    'compiled bf16': ('torch.compile(ours) in bf16', '#8fd9cd'),
    'onnxruntime': ('the exported model in onnxruntime', '#e6842a'),
    'int8': ('the exported model, quantized by onnxruntime', '#f3c08f'),
    'openvino': ('the exported model in OpenVINO', '#7b4ea3'),
    'openvino bf16': ('the exported model in OpenVINO, in bf16 where the CPU can', '#a98bc4'),
    'openvino int8': ('the quantized model in OpenVINO', '#d3c3e2'),
    'torchvision': ("torchvision's compiled operators", '#17a398'),
    'mmcv': ("mmcv's compiled operators", '#e6842a'),
    'published': ('the same network, weights and outputs, computed as the published code does', '#e6842a'),
    'peer': ('another backbone that a user would choose', '#9a9a9a'),
    'compiled peer': ('torch.compile(peer)', '#cfcfcf'),
    'floor': ('GEMM floor: the matrix products of ours alone', 'black'),
}
PEERS = {'peer': 'ours', 'compiled peer': 'compiled'}
"""Variants of peers, which share a column with a variant of ours."""


def report(
    rows: list[dict], name: str, notes: list[str], args: argparse.Namespace, title: str = '', chart: bool = True
) -> None:
    """Print the tables as Markdown, and write NAME_... .json and, for a `chart`, .png into the folder ``args.out``."""
    precision = ' '.join(filter(None, (args.dtype, 'AMP' * args.amp, 'TF32' * args.tf32)))
    title = title or f'{"training step" if args.train else "inference"}, batch {args.batch_size}, {precision}'
    command = f'python benchmarks/{name}.py {shlex.join(sys.argv[1:])}'.strip()
    result = dict(title=f'{name}: {title}', command=command, environment=environment(args.device), notes=notes)
    result['rows'] = rows
    meanings = [f'{variant}: {VARIANTS[variant][0]}' for variant in present(rows)]
    print('', result['title'], markdown(result), '\n'.join(meanings), sep='\n\n')
    args.out.mkdir(parents=True, exist_ok=True)
    mode = 'train' if args.train else 'forward'
    file = args.out / f'{name}_{mode}_{args.device}_{args.dtype}_b{args.batch_size}_t{args.threads}'
    Path(f'{file}.json').write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')
    if chart:
        draw(result, Path(f'{file}.png'))
    print(f'{file}.json{" and .png are" if chart else " is"} written.')


def environment(device: str) -> dict[str, str]:
    """Return the machine and the versions behind a measurement."""
    cpuinfo = Path('/proc/cpuinfo')
    names = [line for line in cpuinfo.read_text().splitlines() if 'model name' in line] if cpuinfo.exists() else []
    info = dict(cpu=names[0].partition(':')[2].strip() if names else platform.processor() or platform.machine())
    if device == 'cuda':
        info |= dict(gpu=torch.cuda.get_device_name(), tf32=str(torch.backends.cuda.matmul.allow_tf32))
    info |= dict(threads=str(torch.get_num_threads()), python=platform.python_version())
    info |= versions()
    return info | {'operators:': {'plain': 'plain PyTorch'}.get(operators.running(), operators.running())}


def provenance(result: dict) -> str:
    return ', '.join(f'{key} {value}' for key, value in result['environment'].items())


def present(rows: list[dict]) -> list[str]:
    """Return the variants of rows in the order of VARIANTS."""
    return [variant for variant in VARIANTS if any(row['variant'] == variant for row in rows)]


def cases(rows: list[dict]) -> dict[str, list[dict]]:
    """Return the rows of each image size."""
    return {case: [row for row in rows if row['case'] == case] for case in dict.fromkeys(row['case'] for row in rows)}


def markdown(result: dict) -> str:
    """Return the machine, one table per image size, and the notes, as paragraphs of Markdown."""
    tables = [table(case, rows) for case, rows in cases(result['rows']).items()]
    return '\n\n'.join([provenance(result), *tables, *result['notes']])


def table(case: str, rows: list[dict]) -> str:
    """Return one line per model: milliseconds of each variant, then their ratios, GMACs and memory."""
    variants = list(dict.fromkeys(PEERS.get(variant, variant) for variant in present(rows)))
    models: dict[str, dict[str, dict]] = {}
    for row in rows:
        models.setdefault(row['model'], {})[PEERS.get(row['variant'], row['variant'])] = row
    columns = {f'{variant} ms': [milliseconds(row.get(variant)) for row in models.values()] for variant in variants}
    for dividend, divisor in (('ours', 'floor'), ('reference', 'ours'), ('published', 'ours')):
        columns[f'{dividend} / {divisor}'] = [ratio(row.get(dividend), row.get(divisor)) for row in models.values()]
    if not {'floor', 'published'} & set(variants):
        columns |= {
            f'{v} / ours': [ratio(row.get(v), row.get('ours')) for row in models.values()] for v in variants[1:]
        }
    first_rows = [next(iter(row.values())) for row in models.values()]
    columns['GMACs'] = [f'{row["gmacs"]:.1f}' if row['gmacs'] else '' for row in first_rows]
    for variant in ('ours', 'with_cp', 'published', 'torchvision', 'mmcv'):
        columns[f'{variant} MB'] = [megabytes(row.get(variant)) for row in models.values()]
    columns = {title: cells for title, cells in columns.items() if any(cells)}
    lines = [(case, *columns), ('---', *['---:'] * len(columns)), *zip(models, *columns.values(), strict=True)]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def milliseconds(row: dict | None) -> str:
    return f'{row["ms"]:.1f} ± {row["spread_ms"]:.1f}' if row else ''


def ratio(dividend: dict | None, divisor: dict | None) -> str:
    return f'{dividend["ms"] / divisor["ms"]:.2f}' if dividend and divisor else ''


def megabytes(row: dict | None) -> str:
    return f'{row["bytes"] / 1e6:.0f}' if row and row['bytes'] is not None else ''


def draw(result: dict, file: Path) -> None:
    """Draw milliseconds as bars, one panel per image size. A black line across a model's bars is its GEMM floor."""
    rows, info = result['rows'], result['environment']
    panels, variants = cases(rows), present(rows)
    width = max(11, 2 * len({row['model'] for row in rows}))
    figure = Figure(figsize=(width, 1.2 + 4 * len(panels)), layout='constrained')
    for ax, (case, case_rows) in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels.items(), strict=True):
        draw_panel(ax, case_rows)
        ax.set_title(case, fontsize=13)
    machine = info.get('gpu', f'{info["cpu"]}, threads {info["threads"]}')
    figure.suptitle(f'{result["title"]}\n{machine}, torch {info["torch"]}', fontsize=14)
    keys = [Patch(color=VARIANTS[variant][1], label=variant) for variant in variants]
    figure.legend(handles=keys, loc='outside lower center', ncols=min(len(keys), 6), fontsize=12, frameon=False)
    figure.savefig(file, dpi=100)


def draw_panel(ax: Axes, rows: list[dict]) -> None:
    left, ticks, labels = 0.0, [], []
    for model in dict.fromkeys(row['model'] for row in rows):
        model_rows = [row for row in rows if row['model'] == model]
        bars = [row for row in model_rows if row['variant'] != 'floor']
        for i, row in enumerate(bars):
            colour = VARIANTS[row['variant']][1]
            bar = ax.bar(left + i, row['ms'], 0.9, color=colour, yerr=row['spread_ms'], ecolor='dimgray', capsize=3)
            ax.bar_label(bar, fmt='%.3g' if row['ms'] < 1000 else '%.0f', padding=3, fontsize=11)
        for row in model_rows:
            if row['variant'] == 'floor':
                ax.hlines(row['ms'], left - 0.5, left + len(bars) - 0.5, color='black', linewidth=2)
        ticks.append(left + (len(bars) - 1) / 2)
        unit = ' GMACs' if len(bars) > 1 else '\nGMACs'  # a single bar is narrow
        labels.append(f'{model}\n{model_rows[0]["gmacs"]:.1f}{unit}')
        left += len(bars) + 0.7
    ax.set_xticks(ticks, labels, fontsize=11)
    ax.tick_params(axis='x', length=0)
    ax.set_ylabel('ms', fontsize=12)
    ax.margins(x=0.02, y=0.12)
    ax.grid(axis='y', alpha=0.3)
    ax.set_axisbelow(True)
    ax.spines[['top', 'right']].set_visible(False)


def write_tables(page: Path, folder: Path) -> list[str]:
    """Write the newest result of each command into the page, and the chart of the first table next to the page.

    Returns:
        A sentence for each table: written, or unchanged.
    """
    files = sorted(folder.rglob('*.json'), key=lambda file: file.stat().st_mtime)
    results = {json.loads(file.read_text(encoding='utf-8')).get('command'): file for file in files}
    sentences: list[str] = []

    def replace(match: re.Match) -> str:
        command = match['command']
        if command not in results:
            sentences.append(f'no result in {folder}, table unchanged: {command}')
            return match[0]
        if not sentences:
            shutil.copy(results[command].with_suffix('.png'), page.with_suffix('.png'))
        sentences.append(f'written from {results[command]}: {command}')
        text = markdown(json.loads(results[command].read_text(encoding='utf-8')))
        return f'{command}\n```\n\n<!-- table -->\n{text}\n\n<!-- end -->'

    page.write_text(TABLE.sub(replace, page.read_text(encoding='utf-8')), encoding='utf-8')
    return sentences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--results', type=Path, default=RESULTS, metavar='DIR', help='JSON files (default: %(default)s)'
    )
    page = ROOT / 'docs/performance.md'
    parser.add_argument('--page', type=Path, default=page, metavar='FILE.md', help='default: %(default)s')
    args = parser.parse_args()
    if not args.page.is_file():
        parser.error(f'--page {args.page}: file not found.')
    print('\n'.join(write_tables(args.page, args.results) or [f'{args.page} has no <!-- table -->.']))


if __name__ == '__main__':
    main()
