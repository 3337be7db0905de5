"""mmcv's layers with the operators of this package."""

import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import mmcv.ops  # noqa: F401
import pytest
import torch
from torch import Tensor

import mlp_dense.operators

MODULES = (
    *('nms', 'roi_align', 'focal_loss', 'deform_conv', 'modulated_deform_conv', 'multi_scale_deform_attn'),
    *('roi_pool', 'border_align', 'carafe', 'masked_conv', 'psa_mask'),
)
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def put_in_place(patch: pytest.MonkeyPatch) -> ModuleType:
    """Replace mmcv._ext in mmcv's layers, even if mmcv's own operators are compiled; return the replacement."""
    spec = spec_from_file_location('stand_in', Path(mlp_dense.operators.__file__).with_name('extension.py'))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in MODULES:
        patch.setattr(sys.modules[f'mmcv.ops.{name}'], 'ext_module', module)
    return module


def strided(values: Tensor) -> Tensor:
    """Return equal values that are not contiguous."""
    return torch.stack([values, values], -1)[..., 0]


def assert_equals_loop(function: Callable, loop: Callable, dtype: torch.dtype, *inputs: Tensor) -> None:
    """Compare results and gradients with those of a loop in float64, for contiguous and for other inputs."""
    inputs = [values.to(dtype) for values in inputs]
    exact = [values.double().requires_grad_() for values in inputs]
    expected = loop(*exact)
    gradient = torch.randn_like(expected).to(dtype)
    expected = [expected, *torch.autograd.grad(expected, exact, gradient.double())]
    for layout in (torch.clone, strided):
        leaves = [layout(values).requires_grad_() for values in inputs]
        result = function(*leaves)
        results = [result, *torch.autograd.grad(result, leaves, layout(gradient))]
        for actual, reference in zip(results, expected, strict=True):
            bound = 32 * torch.finfo(dtype).eps * reference.abs().max().clamp(min=1)
            assert actual.dtype == dtype and actual.shape == reference.shape
            assert (actual.double() - reference).abs().max() <= bound
