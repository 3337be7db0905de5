"""Runs what docs/evidence.md rests on, part by part: tests on a GPU, times, and trainings on real images.

A result that is there already is not made again (delete its file to do so), a training that was cut off goes on, and
what fails stops nothing else. Then docs/evidence.md is written from the results (python benchmarks/evidence/page.py).
"""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path
from threading import BoundedSemaphore

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the other benchmarks are

import torch
from plan import PARTS, ROOT, Step, python, result_file, written

STEPS_AT_ONCE = 4
"""On a GPU: while one measures, the others start and compile."""
RUNNING: set[subprocess.Popen] = set()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='evidence', description=__doc__.partition('\n')[0])
    parser.add_argument('parts', nargs='*', metavar='PART', help=f'some of {", ".join(PARTS)} (default: all)')
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    parser.add_argument('--device', choices=('cpu', 'cuda'), default=device, help='default: %(default)s')
    parser.add_argument('--toy', action='store_true', help='small images, short runs, few models: does everything run?')
    parser.add_argument('--limit', type=float, metavar='MINUTES', help='most time of a part (default: 9 on a GPU)')
    parser.add_argument('--camvid', type=Path, default=Path('data/camvid'), metavar='DIR', help='default: %(default)s')
    parser.add_argument('--coco', type=Path, default=Path('data/coco'), metavar='DIR', help='default: %(default)s')
    parser.add_argument('--epochs', type=int, metavar='N', help='of the trainings (default: 100)')
    parser.add_argument('--img-scale', nargs=2, type=int, metavar='PIXELS', help='of the trainings')
    parser.add_argument('--models', nargs='+', metavar='NAME', help='of the trainings (default: all)')
    parser.add_argument('--only', nargs='+', metavar='NAME', help='only these results, by the names that are printed')
    jobs = max(1, (os.cpu_count() or 1) - 2) if device == 'cuda' else 1
    parser.add_argument('--jobs', type=int, default=jobs, metavar='N', help='commands, tests or trainings at a time')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/evidence'), metavar='DIR', help='of logs and runs')
    results = ROOT / 'docs' / 'evidence'
    parser.add_argument(
        '--results', type=Path, metavar='DIR', help='of the JSON files (default: docs/evidence, of toys OUT/results)'
    )
    parser.add_argument('--dry-run', action='store_true', help='print the commands')
    args = parser.parse_args()
    args.parts = args.parts or list(PARTS)
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f'{", ".join(sorted(unknown))}: the parts are {", ".join(PARTS)}.')
    args.results = args.results or (args.out / 'results' if args.toy else results)
    args.limit = args.limit if args.limit is not None else 9 if args.device == 'cuda' else inf
    if args.jobs < 1:
        parser.error('--jobs must be 1 or more.')
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: PyTorch sees no GPU here.')
    return args


def main() -> None:
    args = parse_args()
    steps = [(part, step) for part in args.parts for step in PARTS[part](args)]
    if unknown := set(args.only or ()) - {step.name for _, step in steps}:
        sys.exit(f'--only {" ".join(sorted(unknown))}: there are {", ".join(step.name for _, step in steps)}.')
    steps = [(part, step) for part, step in steps if not args.only or step.name in args.only]
    if args.dry_run:
        print(*(shlex.join(command) for _, step in steps for command in step.commands), sep='\n')
        return
    outcomes = []
    with ends_what_it_started():
        for part in args.parts:
            outcomes += run_part(part, [step for name, step in steps if name == part], args)
    page = python('benchmarks/evidence/page.py', '--results', args.results)
    page += ['--page', str(args.out / 'evidence.md')] if args.toy else []
    subprocess.run(page, check=True)
    sys.exit(any(outcome.startswith(('failed', 'not run')) for outcome in outcomes))


def run_part(part: str, steps: list[Step], args: argparse.Namespace) -> list[str]:
    """Runs the steps of a part, and prints a line of a table for each; what became of them."""
    outcomes, slots = [], BoundedSemaphore(args.jobs)
    end = time.monotonic() + 60 * args.limit
    with ThreadPoolExecutor(STEPS_AT_ONCE if args.device == 'cuda' else 1) as pool:
        jobs = {pool.submit(run, step, result_file(args, part, step.name), end, slots, args): step for step in steps}
        for job in as_completed(jobs):
            outcomes.append(job.result())
            print(f'| {part} | {jobs[job].name} | {outcomes[-1]} |', flush=True)
    return outcomes


@contextmanager
def ends_what_it_started() -> Iterator[None]:
    """An interrupt or a termination ends the commands, and what they started, too."""

    def stop(number: int, _: object) -> None:
        for process in list(RUNNING):
            kill(process)
        os._exit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def kill(process: subprocess.Popen) -> None:
    """Ends a process and those that it started."""
    with suppress(ProcessLookupError):  # nothing is left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    RUNNING.discard(process)


def run(step: Step, file: Path, end: float, slots: BoundedSemaphore, args: argparse.Namespace) -> str:
    """Runs a step until `end` at the latest, a command in each slot; what became of it."""
    if file.exists():
        return 'there already'
    start = time.monotonic()
    if start >= end:
        return 'not run: the time of the part is over'
    environment = dict(os.environ)
    if args.device == 'cpu':
        environment |= dict(CUDA_VISIBLE_DEVICES='', MLP_DENSE_CUDA_TESTS='cpu')
    folder, log = written(args, step.name), args.out / 'logs' / f'{step.name}.log'
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier try
    for each in (folder, log.parent):
        each.mkdir(parents=True, exist_ok=True)

    def call(command: list[str]) -> int:
        with slots:  # a group of its own: with it end the processes that it started
            process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
            RUNNING.add(process)
            try:
                return process.wait(None if end == inf else end - time.monotonic())
            finally:
                kill(process)

    with log.open('w') as output, ThreadPoolExecutor(len(step.commands)) as pool:
        try:
            failed = list(pool.map(call, step.commands))
        except subprocess.TimeoutExpired:
            return f'failed: not done in time, see {log}'
    if any(failed) and step.name != 'tests':  # whose failures are a result
        return f'failed, see {log}'
    if step.collect:
        try:
            step.collect(folder, file)
        except (OSError, ValueError) as error:
            return f'failed: {error}, see {log}'
    return f'done in {time.monotonic() - start:.0f} s' if file.exists() else f'failed: no result, see {log}'


if __name__ == '__main__':
    main()
