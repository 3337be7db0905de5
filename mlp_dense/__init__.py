"""Vision-MLP backbones for dense prediction with OpenMMLab."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from .errors import explained_imports

__version__ = '0.2.0'

_HOMES = {
    'config_path': 'registry',
    'MLPBackbone': 'backbones.base',
    'HireMLP': 'backbones',
    'ASMLP': 'backbones',
    'CycleMLP': 'backbones',
    'WaveMLP': 'backbones',
    'MLPMixer': 'backbones',
    'VisionPermutator': 'backbones',
    'SparseMLP': 'backbones',
    'fuse': 'backbones.fusion',
    'keep_freed_memory': 'kernels.memory',
    'load_model': 'inference',
    'read_checkpoint': 'checkpoints.reading',
}
"""Modules of the public names. A module is imported when its name is first used, so importing the package is cheap."""

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name == 'kernels':  # for `mlp_dense.kernels.use('reference')` without an import of its own
        return import_module('.kernels', __name__)
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    with explained_imports():
        globals()[name] = getattr(import_module(f'.{_HOMES[name]}', __name__), name)
    return globals()[name]


if find_spec('mmengine'):
    from . import registry  # noqa: F401  registers the bare names of the backbones for configs
