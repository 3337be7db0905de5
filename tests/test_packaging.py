"""Contents of the wheel and of an editable installation, and that both work on their own."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mlp_dense
from support.configs import ROOT

USE = """
import mlp_dense.operators, torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from pathlib import Path
package = Path(mlp_dense.__file__).parent
assert package.parent == Path({unpacked!r}), package
cfg = Config.fromfile(package / '.mim/configs/detection/cycle_mlp_b1_retinanet_1x_coco.py')
init_default_scope('mmdet')
with torch.device('meta'):
    print(type(MODELS.build(cfg.model).backbone).__name__)
"""
ENTRY_POINT = """
import sys
from importlib.metadata import distribution
(script,) = distribution('mlp_dense').entry_points.select(group='console_scripts', name='mlp-dense')
sys.argv = ['mlp-dense', *{arguments}]
script.load()()
"""
COMMANDS = {
    '--version': f'mlp-dense {mlp_dense.__version__}',
    'configs vip_mask_rcnn_coco': '/unpacked/mlp_dense/.mim/configs/detection/vip_mask_rcnn_coco.py',
    'train vip_mask_rcnn_coco --print-config': "type='mlp_dense.VisionPermutator'",
    'train mine.py --print-config': "type='mlp_dense.CycleMLP'",
}


def start(*command, cwd: Path, **environment: str) -> str:
    """Run a command; return its standard output."""
    process = subprocess.run(
        list(map(str, command)), cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.fixture
def clone(tmp_path):
    """Return a copy of the repository. Its files are tracked by git, a config of the user is not."""
    clone = tmp_path / 'clone'
    for name in ('mlp_dense', 'mlp_dense_cli', 'configs', 'tools'):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns('__pycache__', '.mim'))
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'model-index.yml', 'MANIFEST.in'):
        shutil.copy(ROOT / name, clone)
    start('git', 'init', '--quiet', cwd=clone)
    start('git', 'add', '--all', cwd=clone)
    (clone / 'configs' / 'detection' / 'mine.py').write_text("_base_ = './hire_mlp_mask_rcnn_coco.py'\n")
    return clone


@pytest.mark.slow
def test_wheel_contains_tracked_configs_and_works(clone, tmp_path):
    unpacked = tmp_path / 'unpacked'
    options = ('--quiet', '--no-deps', '--no-build-isolation', '--wheel-dir', tmp_path)
    start(sys.executable, '-m', 'pip', 'wheel', *options, clone, cwd=tmp_path)
    (wheel,) = tmp_path.glob(f'mlp_dense-{mlp_dense.__version__}-*.whl')
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(unpacked)
    for folder in ('configs', 'tools'):
        files = {path.relative_to(clone).as_posix() for path in (clone / folder).rglob('*.*') if path.is_file()}
        assert {f'mlp_dense/.mim/{file}' for file in files - {'configs/detection/mine.py'}} <= names
    assert {'mlp_dense/.mim/model-index.yml', 'mlp_dense/py.typed', 'mlp_dense_cli/train.py'} <= names
    assert not any(name.startswith('tests') or 'mine' in name for name in names)
    printed = start(sys.executable, '-c', USE.format(unpacked=str(unpacked)), cwd=tmp_path, PYTHONPATH=str(unpacked))
    assert printed.split()[-1:] == ['CycleMLP']
    (tmp_path / 'mine.py').write_text("_base_ = 'mlp_dense::detection/cycle_mlp_b1_retinanet_1x_coco.py'\n")
    for command, expected in COMMANDS.items():
        program = ENTRY_POINT.format(arguments=command.split())
        assert expected in start(sys.executable, '-W', 'ignore', '-c', program, cwd=tmp_path, PYTHONPATH=str(unpacked))


@pytest.mark.slow
def test_editable_installation_puts_the_clone_on_the_path(clone, tmp_path):
    """An import hook would come too late in the folder that contains the clone, if the clone is called mlp_dense."""
    build = f'from setuptools.build_meta import build_editable; build_editable({str(tmp_path)!r})'
    start(sys.executable, '-c', build, cwd=clone)
    (wheel,) = tmp_path.glob('mlp_dense-*.editable-*.whl')
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith('.pth'))
        assert archive.read(name).decode().strip() == str(clone)
    links = clone / 'mlp_dense' / '.mim'
    assert (links / 'configs' / 'detection' / 'mine.py').is_file() and (links / 'model-index.yml').is_file()
