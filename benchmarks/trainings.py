"""Training runs with several seeds, and tables of their metrics.

`designs` compares the families, and the forms of blocks on a fixed grid, on the generated data. `transfer` compares
random weights with those of a classifier on CamVid. Metrics are kept in a JSON file: a run in it is not repeated, and
an interrupted run resumes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from rich.progress import track

ROOT = Path(__file__).parents[1]
FORMS = ('last', 'all', 'none')
DESIGNS = {  # name in the table, forms of the blocks
    'hire_mlp': ('Hire-MLP', ('',)),
    'as_mlp': ('AS-MLP', ('',)),
    'cycle_mlp': ('CycleMLP', ('',)),
    'wave_mlp': ('Wave-MLP', ('',)),
    'mlp_mixer': ('MLP-Mixer', FORMS),
    'vip': ('ViP', FORMS),
    'sparse_mlp': ('Sparse-MLP', ('last',)),
}
TASKS = {  # end of the config's name, metrics, option that sets the length of the training, length
    'detection': ('mask_rcnn_shapes', {'box mAP': 'coco/bbox_mAP', 'mask mAP': 'coco/segm_mAP'}, 'max_epochs', 15),
    'segmentation': ('upernet_shapes', {'mIoU': 'mIoU'}, 'max_iters', 1000),
}


class Training(NamedTuple):
    config: str | Path  # absolute, or below configs/
    data_root: Path
    seed: int
    options: list[str]  # KEY=VALUE
    metrics: dict[str, str]  # names, and keys of a validation
    arguments: tuple[object, ...] = ()  # further ones of tools/train.py


class Row(NamedTuple):
    labels: tuple[str, ...]
    trainings: dict[str, Training]


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    commands = parser.add_subparsers(dest='command', required=True)
    designs = commands.add_parser('designs', help='families and forms of their blocks on the generated data')
    designs.add_argument('--designs', nargs='+', choices=DESIGNS, default=list(DESIGNS), help='default: all')
    designs.add_argument('--tasks', nargs='+', choices=TASKS, default=list(TASKS), help='default: both')
    text = "fraction of make demo's length (default: 1)"
    designs.add_argument('--budget', type=float, default=1.0, metavar='FRACTION', help=text)
    transfer = commands.add_parser('transfer', help='random and pre-trained weights on CamVid')
    transfer.add_argument('checkpoint', help='path or URL of a classifier')
    transfer.add_argument(
        '--budgets', nargs='+', type=int, default=[500], metavar='N', help='iterations (default: 500)'
    )
    for name, command, data in (('designs', designs, 'shapes'), ('transfer', transfer, 'camvid')):
        command.add_argument('--data-root', type=Path, default=ROOT / 'data' / data, metavar='DIR')
        command.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], metavar='N', help='default: 0 1 2')
        command.add_argument('--jobs', type=int, default=1, metavar='N', help='simultaneous training runs (default: 1)')
        command.add_argument('--out', type=Path, default=Path('work_dirs', name), metavar='DIR', help='training runs')
        results = ROOT / 'docs' / f'{name}.json'
        command.add_argument('--results', type=Path, default=results, metavar='FILE', help='JSON with the metrics')
    return parser.parse_args()


def design_rows(args: argparse.Namespace) -> list[Row]:
    rows = []
    for design in args.designs:
        name, forms = DESIGNS[design]
        for form in forms:
            trainings = {}
            for task in args.tasks:
                config, metrics, length_option, full_length = TASKS[task]
                length = max(1, round(full_length * args.budget))
                warm_up = max(1, min(40, (40 * length if task == 'detection' else length) // 5))  # iterations
                options = [f'train_cfg.{length_option}={length}', f'train_cfg.val_interval={length}']
                options += [f'param_scheduler.0.end={warm_up}', f'param_scheduler.1.end={length}']
                options += [f'param_scheduler.1.begin={warm_up}'] if task == 'segmentation' else []
                options += [f'model.backbone.global_blocks={form}'] if form else []
                file = f'{task}/{design}_{config}.py'
                for seed in args.seeds:
                    key = '_'.join(filter(None, (f'{task}/{design}', form, str(length), str(seed))))
                    trainings[key] = Training(file, args.data_root, seed, options, metrics)
            rows.append(Row((name, form), trainings))
    return rows


def transfer_rows(args: argparse.Namespace) -> list[Row]:
    config, weights = 'segmentation/cycle_mlp_b1_semantic_fpn_camvid-240x180.py', 'model.backbone.init_cfg'
    starts = {'random': [], 'pre-trained': [f'{weights}.type=Pretrained', f'{weights}.checkpoint={args.checkpoint}']}
    metrics, rows = {'mIoU': 'mIoU', 'aAcc': 'aAcc'}, []
    for start, init_options in starts.items():
        for budget in args.budgets:
            keys = ('train_cfg.max_iters', 'train_cfg.val_interval', 'param_scheduler.1.end')
            options = [*(f'{key}={budget}' for key in keys), *init_options]
            trainings = {
                f'{start}_{budget}_{seed}': Training(config, args.data_root, seed, options, metrics)
                for seed in args.seeds
            }
            rows.append(Row((start, str(budget)), trainings))
    return rows


def metrics_of(training: Training, folder: Path) -> dict[str, float]:
    """Return the metrics of the last validation of a training run in a folder."""
    last = records(folder)[-1]
    return {name: round(last[key], 4) for name, key in training.metrics.items()}


def records(folder: Path) -> list[dict[str, Any]]:
    """Return the logged iterations and validations of a folder; a resumed run replaces records of earlier ones."""
    lines = [line for file in sorted(folder.glob('*/vis_data/scalars.json')) for line in file.read_text().splitlines()]
    logged = [json.loads(line) for line in lines]
    return list({(record['step'], 'lr' in record): record for record in logged}.values())


def train_all(
    trainings: dict[str, Training],
    jobs: int,
    out: Path,
    results_file: Path,
    result_of: Callable[[Training, Path], dict[str, Any]] = metrics_of,
) -> dict[str, dict[str, Any]]:
    """Return the result of every training run by name, from the file of results or after training.

    Raises:
        SystemExit: a training run failed. All other runs are finished first.
    """
    results = json.loads(results_file.read_text()) if results_file.exists() else {}
    missing = [name for name in trainings if name not in results]
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(train, trainings[name], out / name, jobs): name for name in missing}
        errors = []
        for future in track(as_completed(futures), 'training', total=len(futures)):
            name = futures[future]
            try:
                future.result()
                results[name] = result_of(trainings[name], out / name)
            except RuntimeError as error:
                errors.append(f'{name} failed:\n{error}')
                continue
            results_file.write_text(json.dumps(results, indent=1, sort_keys=True) + '\n', encoding='utf-8')
    if errors:
        raise SystemExit('\n'.join(errors))
    return {name: results[name] for name in trainings}


def train(training: Training, folder: Path, jobs: int) -> None:
    """Train, or resume an interrupted training."""
    command: list[object] = [ROOT / 'tools' / 'train.py', ROOT / 'configs' / training.config]
    command += ['--data-root', training.data_root, '--work-dir', folder, '--seed', training.seed, *training.arguments]
    command += ['--resume'] if (folder / 'last_checkpoint').exists() else []
    command += ['--cfg-options', *training.options] if training.options else []
    threads = {} if jobs == 1 else {'OMP_NUM_THREADS': str(max(1, (os.cpu_count() or 1) // jobs))}
    run_python(*command, **threads)


def run_python(*command: object, **environment: str) -> None:
    """Run a Python script.

    Raises:
        RuntimeError: the script failed; the message is the end of its output.
    """
    words = [sys.executable, *map(str, command)]
    process = subprocess.run(words, env=os.environ | environment, capture_output=True, text=True)
    if process.returncode:
        raise RuntimeError((process.stdout + process.stderr)[-900:])


def cell(values: list[float]) -> str:
    """Return the mean and, in brackets, the lowest and the highest value of the seeds."""
    digits = 1 if max(values) > 1 else 3
    mean, low, high = (f'{value:.{digits}f}' for value in (statistics.mean(values), min(values), max(values)))
    return f'{mean} ({low} to {high})'


def draw(labels: list[str], columns: list[str], values: list[dict[str, list[float]]], file: Path) -> None:
    """Draw the mean of each row as a bar, one panel per metric, with the range of the seeds."""
    figure = Figure(figsize=(4.2 * len(columns), 0.42 * len(labels) + 1.2), layout='tight')
    for axis, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        for i, metrics in enumerate(values):
            if column in metrics:
                mean = statistics.mean(metrics[column])
                reach = [[mean - min(metrics[column])], [max(metrics[column]) - mean]]
                axis.barh(i, mean, xerr=reach, color='tab:orange' if ' ' in labels[i] else 'tab:blue', capsize=3)
        axis.set_yticks(range(len(labels)), labels if axis is figure.axes[0] else [''] * len(labels))
        axis.invert_yaxis()
        axis.set_xlabel(column)
    figure.savefig(file, dpi=120)


def main() -> None:
    args = read_arguments()
    rows = design_rows(args) if args.command == 'designs' else transfer_rows(args)
    trainings = {name: training for row in rows for name, training in row.trainings.items()}
    results = train_all(trainings, args.jobs, args.out, args.results)
    values: list[dict[str, list[float]]] = [{} for _ in rows]
    for row, metrics in zip(rows, values, strict=True):
        for name in row.trainings:
            for metric, value in results[name].items():
                metrics.setdefault(metric, []).append(value)
    columns = list(dict.fromkeys(metric for training in trainings.values() for metric in training.metrics))
    titles = ('design', 'blocks') if args.command == 'designs' else ('start', 'iterations')
    print(f'| {" | ".join((*titles, *columns))} |\n{"|---" * (2 + len(columns))}|')
    for row, metrics in zip(rows, values, strict=True):
        print(f'| {" | ".join((*row.labels, *(cell(metrics[column]) for column in columns)))} |')
    if args.command == 'designs':
        chart = args.results.with_suffix('.png')
        draw([' '.join(filter(None, row.labels)) for row in rows], columns, values, chart)
        print(f'\nThe metrics are in {args.results}, the chart is {chart}.')


if __name__ == '__main__':
    main()
