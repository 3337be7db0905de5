"""Options that the timing benchmarks share, and interleaved timing."""

import argparse
import ctypes
import gc
import logging
import statistics
import warnings
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from counting import peak_memory, seconds
from mmengine.logging import MMLogger
from rich.console import Console
from rich.progress import track
from torch import nn

import mlp_dense

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


class Size(NamedTuple):
    height: int
    width: int

    def __str__(self) -> str:
        return f'{self.height}x{self.width}'


class Candidate(NamedTuple):
    """A call to time: one variant of a model."""

    model: str
    variant: str
    run: Callable[..., object]
    gmacs: float | None = None


def common_parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--size', nargs='+', type=image_size, metavar='HxW', help='image sizes in pixels')
    threads = torch.get_num_threads()
    parser.add_argument('--threads', type=int, default=threads, metavar='N', help='CPU threads (default: %(default)s)')
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    parser.add_argument('--device', choices=('cpu', 'cuda'), default=device, help='default: %(default)s')
    parser.add_argument('--rounds', type=int, metavar='N', help='timed calls of each variant (default: %(default)s)')
    out = Path('work_dirs/benchmarks')
    parser.add_argument('--out', type=Path, default=out, metavar='DIR', help='for JSON and PNG (default: %(default)s)')
    parser.set_defaults(batch_size=1, dtype='fp32', train=False, amp=False, tf32=False)
    return parser


def network_parser(description: str | None, peers: Collection[str] = ()) -> argparse.ArgumentParser:
    parser = common_parser(description)
    parser.add_argument('--batch-size', type=int, metavar='N', help='images per call (default: 1, 2 in training)')
    parser.add_argument('--dtype', choices=DTYPES, default='fp32', help='data type (default: %(default)s)')
    parser.add_argument('--train', action='store_true', help='time training steps instead of inference')
    if peers:
        peers = list(peers)
        parser.add_argument('--tf32', action='store_true', help='allow TF32 in fp32 products on a GPU')
        parser.add_argument('--peers', nargs='*', choices=peers, default=peers, help='other backbones (default: all)')
        parser.add_argument('--no-peers', dest='peers', action='store_const', const=[], help='no other backbones')
    parser.set_defaults(batch_size=None)
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line, refuse what cannot run, and set the number of threads."""
    args = parser.parse_args()
    args.batch_size = (2 if args.train else 1) if args.batch_size is None else args.batch_size
    for name in ('batch_size', 'threads', 'rounds'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be 1 or more.')
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: PyTorch finds no GPU. Use --device cpu.')
    if args.device == 'cpu' and args.dtype == 'fp16':
        parser.error('--dtype fp16 needs --device cuda. Use fp32 or bf16 on a CPU.')
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.tf32
    torch.set_num_threads(args.threads)
    mlp_dense.keep_freed_memory()  # as the tools do
    torch.manual_seed(0)
    warnings.filterwarnings('ignore')  # the frameworks warn about their own code
    MMLogger.get_current_instance().setLevel(logging.ERROR)
    return args


def image_size(text: str) -> Size:
    height, _, width = text.partition('x')
    if (
        not (height.isdecimal() and width.isdecimal() and int(height) and int(width))
        or int(height) % 32 + int(width) % 32
    ):
        raise argparse.ArgumentTypeError(f'{text!r}: use HEIGHTxWIDTH in multiples of 32 pixels, such as 512x512.')
    return Size(int(height), int(width))


def inference(forward: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return forward()

    return run


def training_step(model: nn.Module, forward_and_backward: Callable[[], object]) -> Callable[..., None]:
    """Return a training step without the optimizer."""

    def run(keep_gradients: bool = False) -> None:
        model.zero_grad(set_to_none=not keep_gradients)
        forward_and_backward()

    return run


def release_memory() -> None:
    """Return freed memory to the system, so that the next network starts as in a fresh process.

    Fragments that earlier networks leave slow the next one down by up to a tenth.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)  # only glibc has it
    if trim is not None:
        trim(0)


def measure(candidates: Sequence[Candidate], case: str, args: argparse.Namespace) -> list[dict]:
    """Measure peak memory and time of all candidates at one size; one row each."""
    memory = [memory_of(candidate, args) for candidate in candidates]
    times = interleaved([candidate.run for candidate in candidates], args.rounds, args.device, case)
    rows = []
    for (model, variant, _, gmacs), samples, num_bytes in zip(candidates, times, memory, strict=True):
        median, half_range = spread(samples)
        row = dict(case=case, model=model, variant=variant, ms=median * 1e3, spread_ms=half_range * 1e3)
        rows.append(row | dict(gmacs=gmacs, bytes=num_bytes))
    return rows


def memory_of(candidate: Candidate, args: argparse.Namespace) -> int | None:
    """Return the peak bytes of a call beyond weights and their gradients. The call is also the warm-up."""
    candidate.run()
    other_runtime = candidate.variant.startswith(('onnxruntime', 'int8', 'openvino'))
    # A dispatch mode on a CPU would run compiled code eagerly. The floor keeps nothing.
    compiled_on_cpu = candidate.variant.startswith('compiled') and args.device == 'cpu'
    if candidate.variant == 'floor' or other_runtime or compiled_on_cpu:
        return None
    options = dict(keep_gradients=True) if args.train else {}
    return peak_memory(partial(candidate.run, **options), args.device)


def interleaved(runs: Sequence[Callable[[], object]], rounds: int, device: str, title: str) -> list[list[float]]:
    """Return the seconds of all calls. Each round calls every candidate, so that noise affects all alike.

    An untimed call precedes each timed one, because the first call after another candidate allocates new memory.
    """
    times: list[list[float]] = [[] for _ in runs]
    for _ in track(range(rounds), title, console=Console(stderr=True), transient=True):
        for run, samples in zip(runs, times, strict=True):
            run()
            samples.append(seconds(run, device))
    return times


def spread(times: Sequence[float]) -> tuple[float, float]:
    """Return the median and half the interquartile range."""
    if len(times) < 2:
        return times[0], 0.0
    low, median, high = statistics.quantiles(times, n=4, method='inclusive')
    return median, (high - low) / 2
