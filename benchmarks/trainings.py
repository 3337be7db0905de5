"""Trainings with several seeds, whose metrics are kept in a file: what is there is not trained again."""

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

from rich.progress import track

ROOT = Path(__file__).parents[1]


class Training(NamedTuple):
    config: str | Path  # below configs/, or anywhere
    data_root: Path
    seed: int
    options: tuple[str, ...]  # KEY=VALUE
    metrics: dict[str, str]  # names, and keys of a validation
    arguments: tuple[str, ...] = ()  # further ones of tools/train.py


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], metavar='N', help='default: 0 1 2')
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='trainings at a time, which share the cores')
    out, results = Path('work_dirs', name), Path('docs', f'{name}.json')
    parser.add_argument('--out', type=Path, default=out, metavar='DIR', help=f'of the trainings (default: {out})')
    text = f'JSON with the metrics of every training (default: {results})'
    parser.add_argument('--results', type=Path, default=ROOT / results, metavar='FILE', help=text)


def metrics_of(training: Training, folder: Path) -> dict[str, float]:
    """Those of the last validation of a training that is in a folder."""
    last = records(folder)[-1]
    return {name: round(last[key], 4) for name, key in training.metrics.items()}


def records(folder: Path) -> list[dict[str, Any]]:
    """What the runs in a folder logged: of each iteration and validation what the last run says."""
    lines = [line for file in sorted(folder.glob('*/vis_data/scalars.json')) for line in file.read_text().splitlines()]
    logged = [json.loads(line) for line in lines]
    return list({(each['step'], 'lr' in each): each for each in logged}.values())


def train_all(
    trainings: dict[str, Training],
    args: argparse.Namespace,
    result_of: Callable[[Training, Path], dict[str, Any]] = metrics_of,
) -> dict[str, dict[str, Any]]:
    """The result of every training, by its name: from the file of results, or after it. SystemExit: one failed, and all
    others are done."""
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    missing = [name for name in trainings if name not in results]
    with ThreadPoolExecutor(args.jobs) as pool:
        started = {pool.submit(_train, trainings[name], args.out / name, args.jobs): name for name in missing}
        failed = []
        for training in track(as_completed(started), 'training', total=len(started)):
            name = started[training]
            try:
                training.result()
                results[name] = result_of(trainings[name], args.out / name)
            except RuntimeError as error:
                failed.append(f'{name} failed:\n{error}')
                continue
            args.results.write_text(json.dumps(results, indent=1, sort_keys=True) + '\n', encoding='utf-8')
    if failed:
        raise SystemExit('\n'.join(failed))
    return {name: results[name] for name in trainings}


def _train(training: Training, folder: Path, jobs: int) -> None:
    """A training that was interrupted goes on. RuntimeError: it failed."""
    command = [sys.executable, ROOT / 'tools' / 'train.py', ROOT / 'configs' / training.config]
    command += ['--data-root', training.data_root, '--work-dir', folder, '--seed', training.seed, *training.arguments]
    command += ['--resume'] if (folder / 'last_checkpoint').exists() else []
    command += ['--cfg-options', *training.options] if training.options else []
    threads = {} if jobs == 1 else {'OMP_NUM_THREADS': str(max(1, os.cpu_count() // jobs))}
    done = subprocess.run([*map(str, command)], env=os.environ | threads, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr)[-900:])


def cell(values: list[float]) -> str:
    """Mean and, in brackets, the lowest and the highest of the seeds."""
    digits = 1 if max(values) > 1 else 3
    mean, low, high = (f'{value:.{digits}f}' for value in (statistics.mean(values), min(values), max(values)))
    return f'{mean} ({low} to {high})'
