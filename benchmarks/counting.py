"""Counts MACs, memory and the sizes of the matrix products of a model."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary


def peak_memory(run: Callable[[], object], device: str) -> int:
    """Peak bytes of the tensors that a call allocates."""
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with NewMemory() as memory:
        run()
    return memory.peak


class NewMemory(TorchDispatchMode):
    """Measures the peak memory of the tensors allocated inside, without the scratch memory of operators."""

    def __init__(self):
        super().__init__()
        self.peak = 0
        self.sizes = WeakIdKeyDictionary()  # in bytes, of the storages that are alive

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        for storage in storages((args, kwargs)):
            self.sizes.setdefault(storage, 0)  # allocated before the measurement
        made = operator(*args, **(kwargs or {}))
        for storage in storages(made):
            self.sizes.setdefault(storage, storage.nbytes())
        self.peak = max(self.peak, sum(self.sizes.values()))
        return made


def storages(tree: object) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def gmacs(forward: Callable[[], object]) -> float:
    """Billions of multiply-accumulate operations of a call."""
    # PyTorch's counter does not know oneDNN's fused operators; without oneDNN PyTorch's own run.
    flags = torch.backends.mkldnn.flags(enabled=False)
    with torch.no_grad(), flags, FlopCounterMode(display=False) as counter:
        forward()
    return counter.get_total_flops() / 2e9


class GemmFloor:
    """The matrix products (GEMMs) of a network alone: each convolution and linear layer as one product of its size.

    Args:
        forward: a call of the model as published, from which the sizes are taken.
    """

    def __init__(self, model: nn.Module, forward: Callable[[], object], dtype: torch.dtype, device: str, train: bool):
        shapes: list[tuple[int, int, int]] = []

        def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            out, k = len(module.weight), module.weight[0].numel()
            if isinstance(module, nn.ConvTranspose2d):
                shapes.append((inputs[0].numel() // out, out, k))  # its weight is (in, out, ...)
            else:
                shapes.append((output.numel() // out, k, out))

        layers = [m for m in model.modules() if getattr(m, 'weight', None) is not None and m.weight.ndim in (2, 4)]
        hooks = [module.register_forward_hook(record) for module in layers]
        with torch.no_grad():
            forward()
        for hook in hooks:
            hook.remove()

        def values(*size: int) -> Tensor:
            return torch.randn(*size, dtype=dtype, device=device)

        inputs = {(rows, k): values(rows, k) for rows, k, _ in shapes}
        gradients = {(rows, n): values(rows, n) for rows, _, n in shapes} if train else {}
        self.products = [(inputs[rows, k], values(n, k), gradients.get((rows, n))) for rows, k, n in shapes]

    def __call__(self, keep_gradients: bool = False) -> None:
        with torch.inference_mode():
            for x, weight, gradient in self.products:
                F.linear(x, weight)
                if gradient is not None:  # the gradients of the input and of the weight
                    gradient @ weight
                    gradient.T @ x
