"""Trains the small models on the embedded data with several seeds, and compares the designs by their metrics.

A design is a family and, of the families on a fixed grid, the form of its blocks. A run that is done already is read
instead of trained; what was interrupted goes on.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib.pyplot as plt
from rich.progress import track

ROOT = Path(__file__).parents[1]
FORMS = ('last', 'all', 'none')
DESIGNS = {
    **{f'{name}_mlp': ('',) for name in ('hire', 'as', 'cycle', 'wave')},
    'mlp_mixer': FORMS,
    'vip': FORMS,
    'sparse_mlp': ('last',),
}
NAMES = dict(
    hire_mlp='Hire-MLP',
    as_mlp='AS-MLP',
    cycle_mlp='CycleMLP',
    wave_mlp='Wave-MLP',
    mlp_mixer='MLP-Mixer',
    vip='ViP',
    sparse_mlp='Sparse-MLP',
)
TASKS = {  # the configs, their metrics, and the option that sets the length of the training
    'detection': ('mask_rcnn_shapes', {'box mAP': 'coco/bbox_mAP', 'mask mAP': 'coco/segm_mAP'}, 'max_epochs'),
    'segmentation': ('upernet_shapes', {'mIoU': 'mIoU'}, 'max_iters'),
}
BUDGETS = {'detection': 15, 'segmentation': 1000}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--designs', nargs='+', choices=DESIGNS, default=list(DESIGNS), help='default: all')
    parser.add_argument('--tasks', nargs='+', choices=TASKS, default=list(TASKS), help='default: both')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], metavar='N', help='default: 0 1 2')
    parser.add_argument('--budget', type=float, default=1.0, metavar='SHARE', help="of make demo's length (default: 1)")
    parser.add_argument('--data-root', type=Path, default=ROOT / 'data' / 'shapes', metavar='DIR')
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='trainings at a time, which share the cores')
    default = Path('work_dirs/designs')
    parser.add_argument('--out', type=Path, default=default, metavar='DIR', help=f'for everything (default: {default})')
    return parser.parse_args()


def train(design: str, form: str, task: str, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """The metrics of the last validation of a run. RuntimeError: it failed."""
    config, metrics, option = TASKS[task]
    length = max(1, round(BUDGETS[task] * args.budget))
    folder = args.out / task / f'{design}{"_" * bool(form)}{form}_{length}_{seed}'
    result = folder / 'result.json'
    if not result.exists():
        warm_up = max(1, min(40, (40 * length if task == 'detection' else length) // 5))
        options = [f'train_cfg.{option}={length}', f'train_cfg.val_interval={length}']
        options += [f'param_scheduler.0.end={warm_up}', f'param_scheduler.1.end={length}']
        options += [f'param_scheduler.1.begin={warm_up}'] if task == 'segmentation' else []
        options += [f'model.backbone.global_blocks={form}'] if form else []
        command = [sys.executable, ROOT / 'tools' / 'train.py', ROOT / 'configs' / task / f'{design}_{config}.py']
        command += ['--data-root', args.data_root, '--work-dir', folder, '--seed', seed]
        command += ['--resume'] if (folder / 'last_checkpoint').exists() else []
        command = [*map(str, command), '--cfg-options', *options]
        threads = {} if args.jobs == 1 else {'OMP_NUM_THREADS': str(max(1, os.cpu_count() // args.jobs))}
        done = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(
                f'{design} {form} on {task} with seed {seed} failed:\n{(done.stdout + done.stderr)[-900:]}'
            )
        scalars = max(folder.glob('*/vis_data/scalars.json'))
        last = [json.loads(line) for line in scalars.read_text().splitlines()][-1]
        result.write_text(json.dumps({name: last[key] for name, key in metrics.items()}))
    return json.loads(result.read_text())


def table(rows: list[dict], columns: list[str]) -> str:
    """Markdown: mean and, in brackets, the lowest and the highest of the seeds."""
    lines = [f'| design | blocks | {" | ".join(columns)} |', '|---' * (2 + len(columns)) + '|']
    for row in rows:
        cells = [cell(row['metrics'][column]) if column in row['metrics'] else '' for column in columns]
        lines.append(f'| {NAMES[row["design"]]} | {row["form"]} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def cell(values: list[float]) -> str:
    digits = 1 if max(values) > 1 else 3
    mean, low, high = (f'{value:.{digits}f}' for value in (statistics.mean(values), min(values), max(values)))
    return f'{mean} ({low} to {high})'


def draw(rows: list[dict], columns: list[str], file: Path) -> None:
    figure, axes = plt.subplots(1, len(columns), figsize=(4.2 * len(columns), 0.42 * len(rows) + 1.2), squeeze=False)
    labels = [f'{NAMES[row["design"]]} {row["form"]}'.strip() for row in rows]
    for axis, column in zip(axes[0], columns, strict=True):
        for i, row in enumerate(rows):
            if values := row['metrics'].get(column):
                mean = statistics.mean(values)
                spread = [[mean - min(values)], [max(values) - mean]]
                axis.barh(i, mean, xerr=spread, color='tab:orange' if row['form'] else 'tab:blue', capsize=3)
        axis.set_yticks(range(len(rows)), labels if axis is axes[0][0] else [''] * len(rows))
        axis.invert_yaxis()
        axis.set_xlabel(column)
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def main() -> None:
    args = parse_args()
    columns = [column for task in args.tasks for column in TASKS[task][1]]
    rows = [dict(design=design, form=form, metrics={}) for design in args.designs for form in DESIGNS[design]]
    runs = [(row, task, seed) for task in args.tasks for seed in args.seeds for row in rows]
    with ThreadPoolExecutor(args.jobs) as pool:
        started = [pool.submit(train, row['design'], row['form'], task, seed, args) for row, task, seed in runs]
        for (row, *_), run in track([*zip(runs, started, strict=True)], 'training'):
            try:
                metrics = run.result()
            except RuntimeError as error:
                pool.shutdown(cancel_futures=True)
                raise SystemExit(str(error)) from None
            for name, value in metrics.items():
                row['metrics'].setdefault(name, []).append(value)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / 'designs.json').write_text(json.dumps(rows, indent=1) + '\n', encoding='utf-8')
    draw(rows, columns, args.out / 'designs.png')
    print(table(rows, columns))
    print(f'\n{args.out}/designs.json and .png are written.')


if __name__ == '__main__':
    main()
