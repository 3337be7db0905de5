"""Counts the MACs and the memory of a call."""

from collections.abc import Callable

import torch
from torch import Tensor
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
