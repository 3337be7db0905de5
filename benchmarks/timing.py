"""What the benchmarks share: interleaved timing, peak memory, the machine, and the report."""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.distributed._tools.mem_tracker import MemTracker

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


def common_parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--size', nargs='+', default=['512x512', '800x1280'], metavar='HxW', help='pictures, in pixels')
    parser.add_argument('--batch-size', type=int, default=1, metavar='N', help='pictures in one call')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), metavar='N', help='CPU threads')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--dtype', choices=DTYPES, default='fp32', help='of weights and pictures')
    parser.add_argument('--train', action='store_true', help='time forward and backward instead of inference')
    parser.add_argument('--rounds', type=int, default=15, metavar='N', help='timed calls of each candidate')
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/benchmarks'), metavar='DIR', help='for JSON and PNG'
    )
    return parser


def picture_size(text: str) -> tuple[int, int]:
    height, _, width = text.partition('x')
    return int(height), int(width)


def environment(device: str) -> dict[str, str]:
    """The machine and the versions behind a number."""
    info = dict(machine=platform.machine(), python=platform.python_version(), torch=torch.__version__)
    cpuinfo = Path('/proc/cpuinfo')
    names = [line for line in cpuinfo.read_text().splitlines() if 'model name' in line] if cpuinfo.exists() else []
    info['cpu'] = names[0].partition(':')[2].strip() if names else platform.processor()
    info['threads'] = str(torch.get_num_threads())
    if device == 'cuda':
        info['gpu'] = torch.cuda.get_device_name()
        info['tf32'] = str(torch.backends.cuda.matmul.allow_tf32)
    return info


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


def interleaved(
    candidates: dict[str, Callable[[], object]], rounds: int, device: str, title: str
) -> dict[str, list[float]]:
    """Seconds of every call: each round calls every candidate once, so that a noisy machine hits all alike."""
    for run in candidates.values():
        for _ in range(2):
            run()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in track(range(rounds), title):
        for name, run in candidates.items():
            times[name].append(seconds(run, device))
    return times


def spread(times: Sequence[float]) -> tuple[float, float]:
    """The median, and half the distance between the quartiles."""
    if len(times) < 2:
        return times[0], 0.0
    low, median, high = statistics.quantiles(times, n=4)
    return median, (high - low) / 2


def peak_memory(run: Callable[[], object], device: str) -> int:
    """Bytes that a call holds at most beyond what was there before: activations and temporary memory."""
    run()  # what stays, such as gradients, is there from now on
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    tracker = MemTracker()
    with tracker:
        run()
    return tracker.get_tracker_snapshot('peak')[torch.device('cpu')]['Total']


def call(model: nn.Module, x: Tensor, train: bool) -> Callable[[], object]:
    """A training step without the optimizer, or inference."""
    if not train:

        def infer() -> object:
            with torch.inference_mode():
                return model(x)

        return infer

    def step() -> None:
        model.zero_grad(set_to_none=False)
        sum(out.sum() for out in model(x)).backward()

    return step


class GemmFloor:
    """The matrix products of a network alone: each convolution and linear layer as one product of the same size."""

    def __init__(self, model: nn.Module, x: Tensor, train: bool):
        self.train = train
        shapes: list[tuple[int, int, int]] = []

        def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            weight = module.weight
            shapes.append((output.numel() // len(weight), weight[0].numel(), len(weight)))

        hooks = [
            m.register_forward_hook(record)
            for m in model.modules()
            if getattr(m, 'weight', None) is not None and m.weight.ndim in (2, 4)
        ]
        with torch.no_grad():
            model(x.to(next(model.parameters()).dtype))
        for hook in hooks:
            hook.remove()
        inputs = {(rows, k): torch.randn(rows, k, dtype=x.dtype, device=x.device) for rows, k, _ in shapes}
        self.products = []
        for rows, k, n in shapes:
            weight = torch.randn(n, k, dtype=x.dtype, device=x.device)
            gradient = torch.randn(rows, n, dtype=x.dtype, device=x.device) if train else None
            self.products.append((inputs[rows, k], weight, gradient))

    def __call__(self) -> None:
        with torch.inference_mode():
            for x, weight, gradient in self.products:
                torch.nn.functional.linear(x, weight)
                if self.train:  # the gradients of the input and of the weight
                    gradient @ weight
                    gradient.T @ x


def save(out: Path, name: str, rows: list[dict], info: dict[str, str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / f'{name}.json').write_text(json.dumps(dict(environment=info, rows=rows), indent=1) + '\n')
