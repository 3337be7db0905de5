"""What a wheel holds, and that it works by itself."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from support.configs import ROOT

USE = """
import mlp_dense, torch
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


@pytest.mark.slow
def test_wheel_carries_configs_and_works(tmp_path):
    source, unpacked = tmp_path / 'source', tmp_path / 'unpacked'
    for name in ('mlp_dense', 'configs', 'tools'):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'model-index.yml'):
        shutil.copy(ROOT / name, source)
    build = ['pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation', '--wheel-dir', tmp_path, source]
    subprocess.run([sys.executable, '-m', *map(str, build)], check=True)
    (wheel,) = tmp_path.glob('*.whl')
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(unpacked)
    for folder in ('configs', 'tools'):
        files = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob('*.*') if path.suffix != '.pyc'}
        assert {f'mlp_dense/.mim/{file}' for file in files if (ROOT / file).is_file()} <= names
    assert 'mlp_dense/.mim/model-index.yml' in names and not any(name.startswith('tests') for name in names)
    environment = {**os.environ, 'PYTHONPATH': str(unpacked)}
    command = [sys.executable, '-c', USE.format(unpacked=str(unpacked))]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split()[-1:] == ['CycleMLP'], done.stderr
