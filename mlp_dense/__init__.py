"""Vision-MLP backbones for dense prediction with OpenMMLab."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from .errors import explained_imports

__version__ = '0.2.0'

_NAMES = {
    'catalog': 'config_path',
    'backbones.base': 'MLPBackbone',
    'backbones': 'HireMLP ASMLP CycleMLP WaveMLP MLPMixer VisionPermutator SparseMLP',
    'backbones.fusion': 'fuse',
    'kernels.memory': 'keep_freed_memory',
    'inference': 'load_model',
    'checkpoints.reading': 'read_checkpoint',
}
"""Public names by module. A module is imported when its name is first used, so importing the package is cheap."""

_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name == 'kernels':  # for `mlp_dense.kernels.use('reference')` without an import of its own
        return import_module('.kernels', __name__)
    if name not in _MODULE_OF:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    with explained_imports():
        globals()[name] = getattr(import_module(f'.{_MODULE_OF[name]}', __name__), name)
    return globals()[name]


if find_spec('mmengine'):
    from . import registry  # noqa: F401  registers the bare names of the backbones for configs
