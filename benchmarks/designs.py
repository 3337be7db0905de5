"""Trains the small models on the embedded data with several seeds, and compares the designs by their metrics.

A design is a family and, of the families on a fixed grid, the form of its blocks. A run whose metrics stand in the file
of results is not trained again, and one that was interrupted goes on.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

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
    parser.add_argument(
        '--out', type=Path, default=default, metavar='DIR', help=f'of the trainings (default: {default})'
    )
    results = ROOT / 'docs' / 'designs.json'
    text = 'JSON with the metrics of every run; the chart is written beside it (default: docs/designs.json)'
    parser.add_argument('--results', type=Path, default=results, metavar='FILE', help=text)
    return parser.parse_args()


class Run(NamedTuple):
    design: str
    form: str
    task: str
    seed: int
    length: int  # in epochs or iterations

    def __str__(self) -> str:
        return '_'.join(filter(None, (f'{self.task}/{self.design}', self.form, str(self.length), str(self.seed))))


def train(run: Run, args: argparse.Namespace) -> dict[str, float]:
    """The metrics of the last validation. RuntimeError: the training failed."""
    config, metrics, option = TASKS[run.task]
    warm_up = max(1, min(40, (40 * run.length if run.task == 'detection' else run.length) // 5))
    options = [f'train_cfg.{option}={run.length}', f'train_cfg.val_interval={run.length}']
    options += [f'param_scheduler.0.end={warm_up}', f'param_scheduler.1.end={run.length}']
    options += [f'param_scheduler.1.begin={warm_up}'] if run.task == 'segmentation' else []
    options += [f'model.backbone.global_blocks={run.form}'] if run.form else []
    folder = args.out / str(run)
    command = [sys.executable, ROOT / 'tools' / 'train.py', ROOT / 'configs' / run.task / f'{run.design}_{config}.py']
    command += ['--data-root', args.data_root, '--work-dir', folder, '--seed', run.seed]
    command += ['--resume'] if (folder / 'last_checkpoint').exists() else []
    command = [*map(str, command), '--cfg-options', *options]
    threads = {} if args.jobs == 1 else {'OMP_NUM_THREADS': str(max(1, os.cpu_count() // args.jobs))}
    done = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'{run} failed:\n{(done.stdout + done.stderr)[-900:]}')
    scalars = max(folder.glob('*/vis_data/scalars.json'))
    last = [json.loads(line) for line in scalars.read_text().splitlines()][-1]
    return {name: round(last[key], 4) for name, key in metrics.items()}


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
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    rows = [dict(design=design, form=form, metrics={}) for design in args.designs for form in DESIGNS[design]]
    length = {task: max(1, round(BUDGETS[task] * args.budget)) for task in args.tasks}
    runs = [
        (Run(row['design'], row['form'], task, seed, length[task]), row)
        for task in args.tasks
        for seed in args.seeds
        for row in rows
    ]
    missing = [run for run, _ in runs if str(run) not in results]
    with ThreadPoolExecutor(args.jobs) as pool:
        started = [pool.submit(train, run, args) for run in missing]
        for run, training in track([*zip(missing, started, strict=True)], 'training'):
            try:
                results[str(run)] = training.result()
            except RuntimeError as error:
                pool.shutdown(cancel_futures=True)
                raise SystemExit(str(error)) from None
            args.results.write_text(json.dumps(results, indent=1, sort_keys=True) + '\n', encoding='utf-8')
    for run, row in runs:
        for name, value in results[str(run)].items():
            row['metrics'].setdefault(name, []).append(value)
    chart = args.results.with_suffix('.png')
    draw(rows, columns, chart)
    print(table(rows, columns))
    print(f'\nThe metrics are in {args.results}, the chart is {chart}.')


if __name__ == '__main__':
    main()
