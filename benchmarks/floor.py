"""The GEMM floor: what the matrix products of a network take alone."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from timing import seconds
from torch import Tensor, nn

from mlp_dense import kernels


class GemmFloor:
    """The matrix products (GEMMs) of a network alone: each convolution and linear layer as one product of its size, by
    PyTorch or by oneDNN, whichever is faster for that size on this machine.

    Args:
        forward: a call of the model as published, from which the sizes are taken.
    """

    def __init__(self, model: nn.Module, forward: Callable[[], object], dtype: torch.dtype, device: str, train: bool):
        sizes: list[tuple[int, int, int]] = []  # of (rows, k) by (k, columns)

        def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            weight = module.weight if module.weight.ndim != 3 else module.weight[0]  # of one expert
            out, k = len(weight), weight[0].numel()
            if isinstance(module, nn.ConvTranspose2d):
                sizes.append((inputs[0].numel() // out, out, k))  # its weight is (in, out, ...)
            else:
                sizes.append((output.numel() // out, k, out))

        layers = [m for m in model.modules() if getattr(m, 'weight', None) is not None and m.weight.ndim > 1]
        hooks = [module.register_forward_hook(record) for module in layers]
        with torch.no_grad():
            forward()
        for hook in hooks:
            hook.remove()
        if train:  # the gradients of the input and of the weight
            sizes += [size for rows, k, out in sizes for size in ((rows, out, k), (out, rows, k))]

        def values(*size: int) -> Tensor:
            return torch.randn(*size, dtype=dtype, device=device)

        left = {(rows, k): values(rows, k) for rows, k, _ in sizes}
        right = {(columns, k): values(columns, k) for _, k, columns in sizes}
        self.products = [(left[rows, k], right[columns, k]) for rows, k, columns in sizes]
        fastest = {size: self._fastest(*operands) for size, operands in zip(sizes, self.products, strict=True)}
        self.functions = [fastest[size] for size in sizes]

    @staticmethod
    @torch.inference_mode()
    def _fastest(x: Tensor, weight: Tensor) -> Callable[[Tensor, Tensor, None], Tensor]:
        def time(product: Callable[[Tensor, Tensor, None], Tensor]) -> float:
            return min(seconds(lambda: product(x, weight, None), x.device.type) for _ in range(3))

        return min((F.linear, kernels.linear), key=time)

    def __call__(self, keep_gradients: bool = False) -> None:
        with torch.inference_mode():
            for product, (x, weight) in zip(self.functions, self.products, strict=True):
                product(x, weight, None)
