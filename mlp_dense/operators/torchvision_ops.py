"""Availability of torchvision's operators."""

from functools import cache

import torch
from torch import Tensor


@cache
def has_torchvision(device: str) -> bool:
    """Whether torchvision is installed with operators that run on this type of device."""
    try:
        from torchvision.ops import deform_conv2d, nms, roi_align

        box, image = torch.tensor([[0.0, 0, 1, 1]], device=device), torch.ones(1, 1, 3, 3, device=device)
        nms(box, box[:, 0], 0.5)
        roi_align(image, [box], 1)
        deform_conv2d(image, image.new_zeros(1, 2, 3, 3), image[:, :, :1, :1])
    except (ImportError, RuntimeError, AssertionError, AttributeError):
        return False  # missing, built for another PyTorch, or without CUDA
    return True


def by_torchvision(values: Tensor) -> bool:
    """Whether torchvision computes an operator for this tensor: only on a GPU, where its gradient is not deterministic.

    On a CPU the PyTorch fallback is faster (``benchmarks/operators.py``).
    """
    return values.is_cuda and has_torchvision('cuda') and not torch.are_deterministic_algorithms_enabled()
