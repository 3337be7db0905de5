"""What stands in for mmcv._ext: only where that is missing, for any project."""

import pkgutil
import re
import subprocess
import sys
from importlib import reload

import pytest

import mlp_dense.operators

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
def test_without_it_mmdet_cannot_be_imported():
    assert "No module named 'mmcv._ext'" in run('import mmdet.models').stderr


@pytest.mark.slow
def test_mmdet_runs_over_it():
    done = run(
        """
import mlp_dense.operators
import mmcv.utils, mmdet.models, mmseg.models, torch, mmcv._ext
from mmcv.ops import nms, RoIPool
assert mmcv._ext.__spec__.name == 'mmcv._ext' and mmcv._ext.__file__.endswith('extension.py')
assert mmcv.utils.ext_loader.check_ops_exist()
print(nms(torch.tensor([[0., 0, 9, 9], [1, 1, 9, 9]]), torch.tensor([0.5, 0.9]), 0.5)[1].tolist())
RoIPool(7)(torch.zeros(1, 1, 9, 9), torch.zeros(1, 5))
"""
    )
    assert '\n[1]\n' in '\n' + done.stdout
    assert re.search('Operators of mmcv: (torchvision on a GPU and )?plain PyTorch', done.stdout + done.stderr)
    last = done.stderr.strip().splitlines()[-1]
    assert (
        last.startswith('NotImplementedError: roi_pool_forward is an operator of mmcv that') and 'MMCV_WITH_OPS' in last
    )


def test_the_compiled_ones_come_first(compiled):
    assert 'extension.py' not in compiled.__file__ and mlp_dense.operators.running() == 'compiled'


def test_maximum_in_bins(stand_in):
    import torch
    from mmcv.ops import RoIAlign

    with pytest.raises(NotImplementedError, match=r"^roi_align with pool_mode='max' is an operator"):
        RoIAlign(7, pool_mode='max')(torch.zeros(1, 1, 9, 9), torch.zeros(1, 5))


def test_pythons_without_find_loader(monkeypatch):
    """Python 3.14 has none; mmengine and mmcv call it."""
    monkeypatch.delattr(pkgutil, 'find_loader', raising=False)
    reload(mlp_dense.operators)
    assert pkgutil.find_loader('mmcv.ops') and pkgutil.find_loader('mmcv.nothing') is None
    assert [type(finder).__name__ for finder in sys.meta_path].count('_StandIn') == 1


@pytest.mark.slow
def test_mmengine_finds_packages_with_a_new_setuptools():
    done = run(
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
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith('ModuleNotFoundError: pkg_resources.parse_version is needed'), done.stderr
