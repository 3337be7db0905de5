"""mmcv's layers with the operators of this package."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import mmcv.ops  # noqa: F401
import pytest

import mlp_dense.operators

MODULES = ('nms', 'roi_align', 'focal_loss', 'deform_conv', 'modulated_deform_conv', 'multi_scale_deform_attn')


def put_in_place(patch: pytest.MonkeyPatch) -> ModuleType:
    """Replace mmcv._ext in mmcv's layers, even if mmcv's own operators are compiled; return the replacement."""
    spec = spec_from_file_location('stand_in', Path(mlp_dense.operators.__file__).with_name('extension.py'))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in MODULES:
        patch.setattr(sys.modules[f'mmcv.ops.{name}'], 'ext_module', module)
    return module
