"""mmcv's compiled operators in plain PyTorch, for machines where they are not compiled.

``import mlp_dense.operators`` before mmdet or mmsegmentation is all that is needed, also with ``mmcv-lite``: where mmcv
has no module ``mmcv._ext``, Python finds one here. Compiled operators come first wherever they are.

mmengine and mmcv also look for modules with means that new Pythons and setuptools no longer have: those are here, too.
"""

import pkgutil
import sys
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from .torchvision import has_torchvision

STAND_INS = {
    'mmcv._ext': Path(__file__).with_name('extension.py'),
    'pkg_resources': Path(__file__).with_name('distributions.py'),
}


class _StandIn(MetaPathFinder):
    """Finds the stand-ins; asked last, when nothing else has found the module."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return spec_from_file_location(name, STAND_INS[name]) if name in STAND_INS else None


@cache
def announce() -> None:
    """Logs once which operators run."""
    print_log(f'Operators of mmcv: {running()}.', 'current')


def running() -> str:
    """Which operators run, in words. ImportError: mmcv is not installed."""
    spec = find_spec('mmcv._ext')
    if spec is None or spec.origin != str(STAND_INS['mmcv._ext']):
        return 'compiled'
    return 'torchvision on a GPU and plain PyTorch elsewhere' if has_torchvision('cuda') else 'plain PyTorch'


if not any(type(finder).__name__ == '_StandIn' for finder in sys.meta_path):
    sys.meta_path.append(_StandIn())
if not hasattr(pkgutil, 'find_loader'):  # Python 3.14 has it no more; mmengine 0.10 and mmcv 2.1 look for _ext with it
    pkgutil.find_loader = lambda name: getattr(find_spec(name), 'loader', None)
