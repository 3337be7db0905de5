"""Writes the tables of docs/performance.md from the results of the benchmarks.

In the page, the text between `<!-- table -->` and `<!-- end -->` is the result of the command in the block above it. A
table whose command has no result stays as it is.
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
from chart import draw
from rich.console import Console
from tables import COLUMNS, KINDS, add_ratios, cases, markdown, peers_table, provenance, times_table

from mlp_dense import operators
from mlp_dense.training.run_info import versions

ROOT = Path(__file__).parents[1]
RESULTS = Path('work_dirs/benchmarks')
TABLE = re.compile(r'(?<=```bash\n)(?P<command>[^\n]+)\n```\n\n<!-- table -->\n(?P<text>.*?)<!-- end -->', re.DOTALL)


def report(
    rows: list[dict], name: str, notes: list[str], args: argparse.Namespace, what: str = '', chart: bool = True
) -> None:
    """Prints the tables and writes NAME_... .json and, for a `chart`, .png into the folder ``args.out``."""
    add_ratios(rows)
    precision = ' '.join(filter(None, (args.dtype, 'AMP' * args.amp, 'TF32' * args.tf32)))
    what = what or f'{"training step" if args.train else "inference"}, batch {args.batch_size}, {precision}'
    title = f'{name}: {what}'
    command = f'python benchmarks/{name}.py {shlex.join(sys.argv[1:])}'.strip()
    result = dict(title=title, command=command, environment=environment(args.device), notes=notes, rows=rows)
    show(result)
    args.out.mkdir(parents=True, exist_ok=True)
    mode = 'train' if args.train else 'forward'
    file = args.out / f'{name}_{mode}_{args.device}_{args.dtype}_b{args.batch_size}_t{args.threads}'
    Path(f'{file}.json').write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')
    info = result['environment']
    machine = info.get('gpu', f'{info["cpu"]}, {args.threads} thread{"s" * (args.threads > 1)}')
    if chart:
        draw(rows, f'{title}\n{machine}, torch {info["torch"]}', f'{file}.png')
    print(f'{file}.json{" and .png are" if chart else " is"} written.')


def environment(device: str) -> dict[str, str]:
    """The machine and the versions behind a number."""
    cpuinfo = Path('/proc/cpuinfo')
    names = [line for line in cpuinfo.read_text().splitlines() if 'model name' in line] if cpuinfo.exists() else []
    info = dict(cpu=names[0].partition(':')[2].strip() if names else platform.processor() or platform.machine())
    if device == 'cuda':
        info |= dict(gpu=torch.cuda.get_device_name(), tf32=str(torch.backends.cuda.matmul.allow_tf32))
    info |= dict(threads=str(torch.get_num_threads()), python=platform.python_version())
    return info | versions() | {'operators:': operators.running()}


def show(result: dict) -> None:
    console, rows = Console(width=120, highlight=False), result['rows']
    console.print(f'\n[bold]{result["title"]}[/bold]\n{provenance(result)}\n')
    for case, own in cases(rows).items():
        console.print(times_table(case, own))
    if any(row['kind'] == 'peer' for row in rows):
        console.print(peers_table(rows))
    for kind, (meaning, _, _) in KINDS.items():
        if any(row['kind'] == kind for row in rows):
            console.print(f'{kind:9} {meaning}')
    console.print('\n'.join([COLUMNS, *result['notes']]))


def write_tables(page: Path, folder: Path) -> list[str]:
    """Puts the newest result of each command into the page, and its first chart beside it.

    Returns:
        A sentence for each table, which says what happened to it.
    """
    files = sorted(folder.rglob('*.json'), key=lambda file: file.stat().st_mtime)
    results = {json.loads(file.read_text(encoding='utf-8')).get('command'): file for file in files}
    said = []

    def replace(match: re.Match) -> str:
        command = match['command']
        if command not in results:
            said.append(f'no result in {folder}, its table stays: {command}')
            return match[0]
        if not said:  # the chart of the page is that of its first table
            shutil.copy(results[command].with_suffix('.png'), page.with_suffix('.png'))
        said.append(f'written from {results[command]}: {command}')
        text = markdown(json.loads(results[command].read_text(encoding='utf-8')))
        return f'{command}\n```\n\n<!-- table -->\n{text}\n\n<!-- end -->'

    page.write_text(TABLE.sub(replace, page.read_text(encoding='utf-8')), encoding='utf-8')
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--results', type=Path, default=RESULTS, metavar='DIR', help='folder of the JSON files (default: %(default)s)'
    )
    parser.add_argument(
        '--page', type=Path, default=ROOT / 'docs/performance.md', metavar='FILE.md', help='default: %(default)s'
    )
    args = parser.parse_args()
    if not args.page.is_file():
        parser.error(f'--page {args.page}: there is no such file.')
    print('\n'.join(write_tables(args.page, args.results) or [f'{args.page} has no <!-- table -->.']))


if __name__ == '__main__':
    main()
