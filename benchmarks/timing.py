"""What the benchmarks share: options, and interleaved timing."""

import argparse
import ctypes
import gc
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from counting import peak_memory
from mmengine.logging import MMLogger
from rich.console import Console
from rich.progress import track
from torch import nn

from mlp_dense.kernels.memory import keep_freed_memory

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


class Size(NamedTuple):
    height: int
    width: int

    def __str__(self) -> str:
        return f'{self.height}x{self.width}'


class Candidate(NamedTuple):
    """A call to time: a row of a model."""

    model: str
    kind: str
    run: Callable[..., object]
    gmacs: float | None = None


def common_parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--size', nargs='+', type=image_size, metavar='HxW', help='image sizes in pixels')
    parser.add_argument(
        '--threads', type=int, default=torch.get_num_threads(), metavar='N', help='CPU threads (default: %(default)s)'
    )
    parser.add_argument(
        '--device',
        choices=('cpu', 'cuda'),
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='where to run (default: %(default)s)',
    )
    parser.add_argument(
        '--lock', type=Path, metavar='FILE', help='held while it measures: several benchmarks may prepare at a time'
    )
    parser.add_argument('--rounds', type=int, metavar='N', help='timed calls of each row (default: %(default)s)')
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/benchmarks'),
        metavar='DIR',
        help='folder for JSON and PNG (default: %(default)s)',
    )
    parser.set_defaults(batch_size=1, dtype='fp32', train=False, amp=False, tf32=False)
    return parser


def network_parser(description: str, peers: Collection[str]) -> argparse.ArgumentParser:
    parser = common_parser(description)
    parser.add_argument('--batch-size', type=int, metavar='N', help='images per call (default: 1, 2 in training)')
    parser.add_argument('--dtype', choices=DTYPES, default='fp32', help='data type (default: %(default)s)')
    parser.add_argument('--train', action='store_true', help='time training steps instead of inference')
    parser.add_argument('--tf32', action='store_true', help='fp32 products on a GPU with the mantissa of TF32')
    peers = list(peers)
    parser.add_argument('--peers', nargs='*', choices=peers, default=peers, help='other backbones (default: all)')
    parser.add_argument('--no-peers', dest='peers', action='store_const', const=[], help='none of them')
    parser.set_defaults(batch_size=None)
    return parser


def parse_args(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parses the command line, refuses what cannot run, and sets the number of threads."""
    args = parser.parse_args()
    args.batch_size = (2 if args.train else 1) if args.batch_size is None else args.batch_size
    for name in ('batch_size', 'threads', 'rounds'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be 1 or more.')
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: PyTorch sees no GPU here.')
    if args.device == 'cpu' and args.dtype == 'fp16':
        parser.error('--dtype fp16 needs --device cuda; on a CPU take fp32 or bf16.')
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.tf32
    torch.set_num_threads(args.threads)
    keep_freed_memory()  # as the tools do
    torch.manual_seed(0)
    warnings.filterwarnings('ignore')  # those of the frameworks about their own code
    MMLogger.get_current_instance().setLevel(logging.ERROR)
    return args


def image_size(text: str) -> Size:
    height, _, width = text.partition('x')
    if (
        not (height.isdecimal() and width.isdecimal() and int(height) and int(width))
        or int(height) % 32 + int(width) % 32
    ):
        raise argparse.ArgumentTypeError(f'{text!r}: give HEIGHTxWIDTH in multiples of 32 pixels, such as 512x512.')
    return Size(int(height), int(width))


def inference(forward: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return forward()

    return run


def training_step(model: nn.Module, forward_and_backward: Callable[[], object]) -> Callable[..., None]:
    """A training step without the optimizer."""

    def run(keep_gradients: bool = False) -> None:
        model.zero_grad(set_to_none=not keep_gradients)
        forward_and_backward()

    return run


@contextmanager
def alone(lock: Path | None, device: str) -> Iterator[None]:
    """Nobody else who holds the lock measures meanwhile."""
    if lock is None:
        yield
        return
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open('w') as file:
        flock(file, LOCK_EX)
        yield
        if device == 'cuda':
            torch.cuda.empty_cache()  # the next one may need all


def release_memory() -> None:
    """Returns what was freed to the system, so that the next network finds memory as in a process of its own: among the
    remains of others, kept in pieces, it would be up to a tenth slower."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)  # glibc's
    if trim is not None:
        trim(0)


def measure(candidates: Sequence[Candidate], case: str, args: argparse.Namespace) -> list[dict]:
    """Peak memory and times of all candidates at one size; a row for each."""
    for each in candidates:
        if each.kind.startswith('compiled'):
            each.run()  # compiling takes long, and nobody need wait for it
    with alone(args.lock, args.device):
        memory = [memory_of(each, args) for each in candidates]
        times = interleaved([each.run for each in candidates], args.rounds, args.device, case)
    rows = []
    for each, seconds_, bytes_ in zip(candidates, times, memory, strict=True):
        median, half = spread(seconds_)
        row = dict(case=case, model=each.model, kind=each.kind, ms=median * 1e3, spread_ms=half * 1e3)
        rows.append(row | dict(img_s=args.batch_size / median if each.gmacs else None, gmacs=each.gmacs, bytes=bytes_))
    return rows


def memory_of(candidate: Candidate, args: argparse.Namespace) -> int | None:
    """Peak bytes of a call beyond weights and their gradients; the call is also the warm-up."""
    candidate.run()
    elsewhere = candidate.kind.startswith(('onnxruntime', 'int8', 'openvino'))
    if candidate.kind == 'floor' or elsewhere or (candidate.kind.startswith('compiled') and args.device == 'cpu'):
        return None  # the floor keeps nothing; a dispatch mode would make compiled code run eagerly
    kept = dict(keep_gradients=True) if args.train else {}
    return peak_memory(partial(candidate.run, **kept), args.device)


def interleaved(runs: Sequence[Callable[[], object]], rounds: int, device: str, title: str) -> list[list[float]]:
    """Seconds of every call: each round calls every candidate once, so that noise of the machine hits all alike, after
    a call that is not timed: the first one after another candidate's gets new memory from the system."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in track(range(rounds), title, console=Console(stderr=True), transient=True):
        for run, own in zip(runs, times, strict=True):
            run()
            own.append(seconds(run, device))
    return times


def seconds(run: Callable[[], object], device: str) -> float:
    if device == 'cuda':
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def spread(times: Sequence[float]) -> tuple[float, float]:
    """The median, and half the interquartile range."""
    if len(times) < 2:
        return times[0], 0.0
    low, median, high = statistics.quantiles(times, n=4, method='inclusive')
    return median, (high - low) / 2
