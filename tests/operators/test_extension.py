"""Fallbacks for mmcv._ext and others: used only if the originals are missing, in any project."""

import pkgutil
import re
import subprocess
import sys

import pytest

import mlp_dense.operators
from support.configs import DETECTION

WITHOUT = """
import sys
from importlib.machinery import PathFinder

class WithoutCompiled(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        missing = name in ('mmcv._ext', 'pkg_resources')  # mmcv-lite, and setuptools 82
        return None if missing else PathFinder.find_spec(name, path, target)

sys.meta_path = [WithoutCompiled if finder is PathFinder else finder for finder in sys.meta_path]
"""


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, '-c', WITHOUT + code], capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_mmdet_uses_the_fallback():
    completed = run(
        """
import mlp_dense.operators
import mmcv.utils, mmdet.models, mmseg.models, torch, mmcv._ext
from mmcv.ops import nms, DeformRoIPool
assert mmcv._ext.__spec__.name == 'mmcv._ext' and mmcv._ext.__file__.endswith('extension.py')
assert mmcv.utils.ext_loader.check_ops_exist()
print(nms(torch.tensor([[0., 0, 9, 9], [1, 1, 9, 9]]), torch.tensor([0.5, 0.9]), 0.5)[1].tolist())
DeformRoIPool(7)(torch.zeros(1, 1, 9, 9), torch.zeros(1, 5))
"""
    )
    assert '\n[1]\n' in '\n' + completed.stdout
    log = completed.stdout + completed.stderr
    assert re.search('Operators of mmcv: (torchvision on a GPU, )?PyTorch fallbacks', log)
    last = completed.stderr.strip().splitlines()[-1]
    assert (
        last.startswith('NotImplementedError: deform_roi_pool_forward is an operator of mmcv')
        and 'MMCV_WITH_OPS' in last
    )


@pytest.mark.slow
@pytest.mark.parametrize('module, installed', [('mlp_dense', False), ('mlp_dense.operators', True)])
def test_only_importing_the_operators_installs_the_fallbacks(module, installed):
    completed = run(
        f"""
import pkgutil
if hasattr(pkgutil, 'find_loader'):
    del pkgutil.find_loader  # Python 3.14
import mmengine.registry, torch
before = list(sys.meta_path), dict(vars(pkgutil)), 'pkg_resources' in sys.modules
import {module}
print((list(sys.meta_path), dict(vars(pkgutil)), 'pkg_resources' in sys.modules) != before)
"""
    )
    assert completed.stdout.splitlines()[-1] == str(installed), completed.stderr


@pytest.mark.slow
def test_tools_install_the_fallbacks(shapes, tmp_path):
    completed = run(
        f"""
from mlp_dense_cli import main
sys.argv = ['mlp-dense', 'train', {DETECTION!r}, '--data-root', {str(shapes)!r}, '--work-dir', {str(tmp_path)!r}]
sys.argv += ['--check-data']
main()
import mmcv.ops
"""
    )
    assert completed.returncode == 0, completed.stderr


def test_compiled_operators_have_priority(compiled):
    assert 'extension.py' not in compiled.__file__ and mlp_dense.operators.running() == 'compiled'


@pytest.mark.parametrize('name, needs_gpu', [('pixel_group', False), ('tin_shift_forward', True)])
def test_missing_operators_report_whether_mmcv_needs_a_gpu(name, needs_gpu, fallback):
    with pytest.raises(NotImplementedError, match=f'^{name} is an operator of mmcv') as error:
        getattr(fallback, name)()
    assert ('It needs a GPU also in mmcv' in str(error.value)) == needs_gpu


def test_install_adds_find_loader_once(monkeypatch):
    """Python 3.14 removed it; mmengine and mmcv call it."""
    monkeypatch.delattr(pkgutil, 'find_loader', raising=False)
    mlp_dense.operators.install()
    assert pkgutil.find_loader('mmcv.ops') and pkgutil.find_loader('mmcv.nothing') is None
    assert [type(finder).__name__ for finder in sys.meta_path].count('_FallbackFinder') == 1


@pytest.mark.slow
def test_mmengine_finds_packages_with_a_new_setuptools():
    completed = run(
        """
import mlp_dense.operators
from pathlib import Path
import mmdet, mmengine, pkg_resources
from mmengine.hub import get_config
from mmengine.utils import get_installed_path, is_installed
assert pkg_resources.__file__.endswith('distributions.py')
assert is_installed('mmengine') and is_installed('mlp_dense.operators') and not is_installed('mmfood')
assert Path(get_installed_path('mmdet')) == Path(mmdet.__file__).parent
assert 'RetinaNet' in get_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py').model.type
pkg_resources.parse_version
"""
    )
    last = completed.stderr.strip().splitlines()[-1]
    assert last.startswith('ModuleNotFoundError: pkg_resources.parse_version is needed'), completed.stderr
