"""Runs what docs/evidence.md rests on, part by part: tests on a GPU, times, and trainings on real images.

A result that is there already is not made again, and one that fails stops no other. Then docs/evidence.md is written
from the results (python benchmarks/evidence/page.py).
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the other benchmarks are

import torch
from plan import PARTS, ROOT, Step, python, written


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='evidence', description=__doc__.partition('\n')[0])
    parser.add_argument('parts', nargs='*', metavar='PART', help=f'some of {", ".join(PARTS)} (default: all)')
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    parser.add_argument('--device', choices=('cpu', 'cuda'), default=device, help='default: %(default)s')
    parser.add_argument('--toy', action='store_true', help='small, short and few: whether everything runs')
    parser.add_argument('--limit', type=float, default=9, metavar='MINUTES', help='of a part (default: %(default)s)')
    parser.add_argument('--camvid', type=Path, default=Path('data/camvid'), metavar='DIR', help='default: %(default)s')
    parser.add_argument('--coco', type=Path, default=Path('data/coco'), metavar='DIR', help='default: %(default)s')
    parser.add_argument('--epochs', type=int, metavar='N', help='of the trainings')
    parser.add_argument('--img-scale', nargs=2, type=int, metavar='PIXELS', help='of the trainings')
    parser.add_argument('--models', nargs='+', metavar='NAME', help='of the trainings (default: all)')
    parser.add_argument('--only', nargs='+', metavar='NAME', help='only these results of the parts')
    jobs = max(1, (os.cpu_count() or 1) - 2) if device == 'cuda' else 1
    parser.add_argument('--jobs', type=int, default=jobs, metavar='N', help='tests, or trainings, at a time')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/evidence'), metavar='DIR', help='of logs and runs')
    results = ROOT / 'docs' / 'evidence'
    parser.add_argument('--results', type=Path, default=results, metavar='DIR', help='of the JSON files')
    parser.add_argument('--dry-run', action='store_true', help='print the commands')
    args = parser.parse_args()
    args.parts = args.parts or list(PARTS)
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f'{", ".join(sorted(unknown))}: the parts are {", ".join(PARTS)}.')
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: PyTorch sees no GPU here.')
    return args


def main() -> None:
    args = parse_args()
    rows = []
    for part in args.parts:
        begin = time.monotonic()
        for step in PARTS[part](args):
            if args.only and step.name not in args.only:
                continue
            if args.dry_run:
                print(*map(shlex.join, (*step.warm_ups, step.command)), sep='\n')
                continue
            left = begin + 60 * args.limit - time.monotonic()
            took = time.monotonic()
            outcome = run(step, args.results / part / f'{step.name}.json', left, args)
            rows.append((part, step.name, outcome, f'{time.monotonic() - took:.0f} s'))
            print('| ' + ' | '.join(rows[-1]) + ' |', flush=True)
    if args.dry_run:
        return
    page = python('benchmarks/evidence/page.py', '--results', args.results)
    page += ['--page', str(args.out / 'evidence.md')] if args.toy else []
    subprocess.run(page, check=True)
    sys.exit(any('failed' in outcome for _, _, outcome, _ in rows))


def run(step: Step, result: Path, left: float, args: argparse.Namespace) -> str:
    """Runs a step for at most `left` seconds; what became of it."""
    if result.exists():
        return 'there already'
    if left <= 0:
        return 'not run: the time of the part is over'
    environment = dict(os.environ)
    if args.device == 'cpu':
        environment |= dict(CUDA_VISIBLE_DEVICES='', MLP_DENSE_CUDA_TESTS='cpu')
    folder = written(args, step.name)
    log = args.out / 'logs' / f'{step.name}.log'
    for each in (folder, log.parent):
        each.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + left
    try:
        if step.warm_ups:
            at_once(step.warm_ups, log.with_suffix('.warm_ups.log'), end, environment)
        with log.open('w') as output:
            done = subprocess.run(
                step.command, stdout=output, stderr=output, env=environment, timeout=end - time.monotonic()
            )
    except subprocess.TimeoutExpired:
        return f'failed: not done in time, see {log}'
    if done.returncode and step.name != 'tests':  # whose failures are a result
        return f'failed, see {log}'
    if step.collect:
        step.collect(folder, result)
    return 'done' if result.exists() else f'failed: no result, see {log}'


def at_once(commands: Sequence[list[str]], log: Path, end: float, environment: dict[str, str]) -> None:
    with log.open('w') as output:
        running = [subprocess.Popen(command, stdout=output, stderr=output, env=environment) for command in commands]
        try:
            for each in running:
                each.wait(end - time.monotonic())
        finally:
            for each in running:
                each.kill()


if __name__ == '__main__':
    main()
