"""MACs, memory and seconds of a call, and the GEMM floor: the matrix products of a network alone."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import mlp_dense.operators  # noqa: F401  replaces mmcv's compiled operators before a benchmark imports mmdet
from mlp_dense import kernels


def gmacs(forward: Callable[[], object]) -> float:
    """Return the billions of multiply-accumulate operations of a call."""
    with torch.no_grad(), kernels.use('reference'), FlopCounterMode(display=False) as counter:
        forward()
    return counter.get_total_flops() / 2e9


def peak_memory(run: Callable[[], object], device: str) -> int:
    """Return the peak bytes that PyTorch allocates during a call, beyond what exists before it."""
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    # A dispatch mode would switch the faster kernels off; a profiler does not.
    with silent(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == '[memory]']
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(changes), default=0)


@contextmanager
def silent() -> Iterator[None]:
    """Discard the output of C++ code: PyTorch 2.13's profiler prints lines with `USDT`."""
    copies = [os.dup(stream) for stream in (1, 2)]
    with open(os.devnull, 'w') as sink:
        for stream in (1, 2):
            os.dup2(sink.fileno(), stream)
        try:
            yield
        finally:
            for stream, copy in zip((1, 2), copies, strict=True):
                os.dup2(copy, stream)
                os.close(copy)


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


class ProductSizes(TorchDispatchMode):
    """Sizes (rows, k, columns) of the matrix products in the context; a convolution is one product."""

    def __init__(self):
        super().__init__()
        self.sizes: list[tuple[int, int, int]] = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        name = operator._overloadpacket.__name__
        if name == 'convolution':
            x, weight, transposed = args[0], args[1], args[6]
            out, k = len(weight), weight[0].numel()
            if transposed:  # the weight is (in, out, ...)
                self.sizes.append((x.numel() // out, out, k))
            else:
                self.sizes.append((result.numel() // out, k, out))
        elif name in ('mm', 'addmm', 'bmm', 'baddbmm'):
            left, right = args[-2:]
            rows, k, columns = left.shape[-2], left.shape[-1], right.shape[-1]
            batch = len(left) if left.ndim == 3 else 1
            weight_is_left = left.ndim == 3 and left.stride(0) == 0  # expanded for the batch
            self.sizes.append((rows, k, columns * batch) if weight_is_left else (rows * batch, k, columns))
        return result


class GemmFloor:
    """The matrix products (GEMMs) of a call alone.

    Each convolution and linear layer becomes one product of its size, computed by PyTorch or by oneDNN, whichever is
    faster for that size on this machine.

    Args:
        forward: a call of the model in fp32.
        train: also include the products of the backward pass.
    """

    def __init__(self, forward: Callable[[], object], dtype: torch.dtype, device: str, train: bool):
        with torch.no_grad(), kernels.use('reference'), ProductSizes() as mode:
            forward()
        sizes = mode.sizes
        if train:  # the gradients of the input and of the weight
            sizes += [size for rows, k, out in sizes for size in ((rows, out, k), (out, rows, k))]

        def values(*size: int) -> Tensor:
            return torch.randn(*size, dtype=dtype, device=device)

        left = {(rows, k): values(rows, k) for rows, k, _ in sizes}
        right = {(columns, k): values(columns, k) for _, k, columns in sizes}
        self.products = [(left[rows, k], right[columns, k]) for rows, k, columns in sizes]
        fastest = {size: fastest_product(*operands) for size, operands in zip(sizes, self.products, strict=True)}
        self.functions = [fastest[size] for size in sizes]

    def __call__(self, keep_gradients: bool = False) -> None:
        with torch.inference_mode():
            for product, (x, weight) in zip(self.functions, self.products, strict=True):
                product(x, weight)


@torch.inference_mode()
def fastest_product(x: Tensor, weight: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    onednn = torch.backends.mkldnn.is_available() and x.device.type == 'cpu'
    onednn &= x.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    products = (F.linear, onednn_linear) if onednn else (F.linear,)
    return min(products, key=lambda product: min(seconds(lambda: product(x, weight), x.device.type) for _ in range(3)))


def onednn_linear(x: Tensor, weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, 'none', [], 'none')
