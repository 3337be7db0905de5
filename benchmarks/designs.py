"""Trains the small models on the embedded data with several seeds, and compares the designs by their metrics.

A design is a family and, of the families on a fixed grid, the form of its blocks. A run whose metrics stand in the file
of results is not trained again, and one that was interrupted goes on.
"""

import argparse
import statistics
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
from trainings import ROOT, Training, add_arguments, cell, train_all

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
    parser.add_argument('--budget', type=float, default=1.0, metavar='SHARE', help="of make demo's length (default: 1)")
    parser.add_argument('--data-root', type=Path, default=ROOT / 'data' / 'shapes', metavar='DIR')
    add_arguments(parser, 'designs')
    return parser.parse_args()


class Run(NamedTuple):
    design: str
    form: str
    task: str
    seed: int
    length: int  # in epochs or iterations

    def __str__(self) -> str:
        return '_'.join(filter(None, (f'{self.task}/{self.design}', self.form, str(self.length), str(self.seed))))

    def training(self, data_root: Path) -> Training:
        config, metrics, option = TASKS[self.task]
        warm_up = max(1, min(40, (40 * self.length if self.task == 'detection' else self.length) // 5))
        options = [f'train_cfg.{option}={self.length}', f'train_cfg.val_interval={self.length}']
        options += [f'param_scheduler.0.end={warm_up}', f'param_scheduler.1.end={self.length}']
        options += [f'param_scheduler.1.begin={warm_up}'] if self.task == 'segmentation' else []
        options += [f'model.backbone.global_blocks={self.form}'] if self.form else []
        return Training(f'{self.task}/{self.design}_{config}.py', data_root, self.seed, tuple(options), metrics)


def table(rows: list[dict], columns: list[str]) -> str:
    """Markdown: mean and, in brackets, the lowest and the highest of the seeds."""
    lines = [f'| design | blocks | {" | ".join(columns)} |', '|---' * (2 + len(columns)) + '|']
    for row in rows:
        cells = [cell(row['metrics'][column]) if column in row['metrics'] else '' for column in columns]
        lines.append(f'| {NAMES[row["design"]]} | {row["form"]} | {" | ".join(cells)} |')
    return '\n'.join(lines)


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
    length = {task: max(1, round(BUDGETS[task] * args.budget)) for task in args.tasks}
    runs = [
        (Run(row['design'], row['form'], task, seed, length[task]), row)
        for task in args.tasks
        for seed in args.seeds
        for row in rows
    ]
    results = train_all({str(run): run.training(args.data_root) for run, _ in runs}, args)
    for run, row in runs:
        for name, value in results[str(run)].items():
            row['metrics'].setdefault(name, []).append(value)
    chart = args.results.with_suffix('.png')
    draw(rows, columns, chart)
    print(table(rows, columns))
    print(f'\nThe metrics are in {args.results}, the chart is {chart}.')


if __name__ == '__main__':
    main()
