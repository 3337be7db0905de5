"""PyTorch fallbacks for mmcv's compiled operators.

Import this module before mmdet or mmsegmentation to install them in this process, also with ``mmcv-lite``.
``mlp-dense operators install`` installs those of mmcv for every process (``mmcv_file.py``).
"""

import pkgutil
import sys
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

FALLBACKS = {
    'mmcv._ext': Path(__file__).with_name('extension.py'),
    'pkg_resources': Path(__file__).with_name('distributions.py'),
}
"""Files of the fallbacks by the name of the module that they replace."""


class _FallbackFinder(MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return spec_from_file_location(name, FALLBACKS[name]) if name in FALLBACKS else None


def install() -> None:
    """Install fallbacks for modules that mmengine 0.10 and mmcv 2.1 need and that may be missing.

    They apply to the whole process. An original that is installed always has priority, and a second call has no effect.

    * ``mmcv._ext``: mmcv's compiled operators, which mmcv-lite lacks.
    * ``pkg_resources``: setuptools 82 removed it.
    * ``pkgutil.find_loader``: Python 3.14 removed it.

    ``import mlp_dense.operators``, the tools and :func:`mlp_dense.load_model` call this function.
    """
    if not any(isinstance(finder, _FallbackFinder) for finder in sys.meta_path):
        sys.meta_path.append(_FallbackFinder())  # at the end, so that installed modules are found first
    if not hasattr(pkgutil, 'find_loader'):
        vars(pkgutil)['find_loader'] = lambda name: getattr(find_spec(name), 'loader', None)


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


def full_precision(values: Tensor) -> Tensor:
    """Return values in float32 if they are in half precision."""
    return values if values.dtype == torch.float64 else values.float()


@cache
def announce() -> None:
    """Log once which operators run."""
    print_log(f'Operators of mmcv: {running()}.', 'current')


def running() -> str:
    """Return a description of the operators that run."""
    spec = find_spec('mmcv._ext')
    if spec is None or not (spec.origin or '').endswith('.py'):
        return 'compiled'
    return 'torchvision on a GPU, PyTorch fallbacks elsewhere' if has_torchvision('cuda') else 'PyTorch fallbacks'


install()
