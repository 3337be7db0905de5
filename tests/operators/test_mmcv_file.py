"""The file mmcv/_ext.py: with it mmcv has operators in every process; other files are never changed.

No test writes into the installed mmcv: each has a folder of its own.
"""

import errno
import os
import py_compile
import re
import subprocess
import sys
import venv
import zipfile
from hashlib import sha256
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import mmcv
import pytest

from mlp_dense.errors import NotInstalledError, UserError, explain_import
from mlp_dense.operators.mmcv_file import HEADER, install, mmcv_folder, remove, status, version_of
from mlp_dense_cli import operators
from support.configs import ROOT
from support.tools import NO_WORKERS, log_of, run
from support.trainings import foreign_script

COMPILED = f'_ext{EXTENSION_SUFFIXES[0]}'


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return the folder of an empty package mmcv."""
    folder = tmp_path / 'site' / 'mmcv'
    folder.mkdir(parents=True)
    (folder / '__init__.py').touch()
    return folder


@pytest.fixture
def linked(folder, monkeypatch) -> Path:
    """Return a folder with links to the files of mmcv, except operators; new processes import mmcv from it."""
    (folder / '__init__.py').unlink()
    for path in Path(mmcv.__file__).parent.iterdir():
        if path.name.partition('.')[0] not in ('_ext', '__pycache__'):
            (folder / path.name).symlink_to(path)
    monkeypatch.setenv('PYTHONPATH', f'{folder.parent}{os.pathsep}{ROOT}')
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def write_older(folder: Path) -> None:
    """Write the file of an older version."""
    body = 'nms = None\n'
    header = HEADER.format(version='0.0.1', checksum=sha256(body.encode()).hexdigest())
    (folder / '_ext.py').write_text(f'# {header}\n{body}')


def import_without_packages(folder: Path) -> str:
    """Import the operators in a new process that has only the standard library; return the last line of its error."""
    command = [sys.executable, '-S', '-c', 'import mmcv._ext']
    environment = {'PYTHONDONTWRITEBYTECODE': '1'}
    process = subprocess.run(command, cwd=folder.parent, env=environment, capture_output=True, text=True)
    return process.stderr.strip().splitlines()[-1]


def test_file_is_written_once(folder):
    assert status(folder).kind == 'absent' and 'operators install' in status(folder).remedy
    file = folder / '_ext.py'
    assert install(folder, '1.2.3').startswith(f'Wrote {file}:')
    written = contents(folder)
    assert set(written) == {'__init__.py', '_ext.py'} and version_of(file) == '1.2.3'
    state = status(folder)
    assert (state.kind, state.usable, state.remedy) == ('installed', True, '')
    assert f'{file} (written by 1.2.3)' in state.text
    assert install(folder, '1.2.4').endswith('Nothing was changed.') and contents(folder) == written


def test_file_of_an_older_version_is_replaced(folder):
    write_older(folder)
    state = status(folder)
    assert (state.kind, state.usable) == ('stale', False) and 'was written by mlp_dense 0.0.1' in state.text
    install(folder, '1.2.3')
    assert status(folder).kind == 'installed'


def test_changed_file_is_not_ours(folder):
    install(folder, '1.2.3')
    with (folder / '_ext.py').open('a') as file:
        file.write('nms = None\n')
    assert status(folder).kind == 'other'


@pytest.mark.parametrize(
    ('name', 'kind'),
    [(COMPILED, 'compiled'), ('_ext.so', 'compiled'), ('_ext.cpython-27.so', 'other'), ('_ext.py', 'other'),
     ('_ext.pyc', 'other'), ('_ext/__init__.py', 'other')],
)  # fmt: skip
@pytest.mark.parametrize('content', ['', '# Written by mlp_dense 1.2.3\n'])
def test_other_operators_are_never_changed(folder, name, kind, content):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    before = contents(folder)
    assert status(folder).kind == kind and status(folder).usable == (kind == 'compiled')
    with pytest.raises(UserError, match=name.partition('/')[0]):
        install(folder, '1.2.3')
    if name == '_ext.py':
        with pytest.raises(UserError, match='was not written by mlp_dense, so it stays'):
            remove(folder)
    else:
        assert remove(folder).endswith('Nothing was changed.')
    assert contents(folder) == before


def test_python_prefers_compiled_operators(folder):
    install(folder, '1.2.3')
    (folder / COMPILED).touch()
    assert COMPILED in import_without_packages(folder), 'an empty file cannot be loaded'
    state = status(folder)
    assert (state.kind, state.usable) == ('compiled', True)
    assert f'have priority over {folder / "_ext.py"}' in state.text and 'operators remove' in state.remedy
    remove(folder)
    assert set(contents(folder)) == {'__init__.py', COMPILED} and not status(folder).remedy


@pytest.mark.parametrize('write', [lambda folder: install(folder, '1.2.3'), write_older])
def test_remove_deletes_the_file_and_its_compiled_copies_only(folder, write):
    (folder / 'version.py').touch()
    for level in (0, 1):
        py_compile.compile(folder / 'version.py', optimize=level)
    before = contents(folder)
    write(folder)
    for level in (0, 1):
        py_compile.compile(folder / '_ext.py', optimize=level)
    assert len(contents(folder)) == len(before) + 3
    assert remove(folder) == f'Removed {folder / "_ext.py"}.'
    assert contents(folder) == before


def test_file_that_an_uninstalled_mmcv_left_is_removed_with_its_folder(folder, monkeypatch):
    """Otherwise Python would import the folder as a namespace package."""
    monkeypatch.delitem(sys.modules, 'mmcv')
    monkeypatch.setattr(sys, 'path', [str(folder.parent)])
    install(folder, '1.2.3')
    py_compile.compile(folder / '_ext.py')
    (folder / '__init__.py').unlink()
    assert mmcv_folder() == folder and status(folder).kind == 'left'
    with pytest.raises(UserError, match='run mlp-dense operators remove'):
        install(folder, '1.2.3')
    remove(folder)
    assert not folder.exists()
    for prepare in (lambda: None, folder.mkdir):
        prepare()
        with pytest.raises(NotInstalledError, match=r'^mmcv is not installed: pip install mmcv-lite'):
            mmcv_folder()


@pytest.mark.parametrize(('action', 'method'), [(lambda folder: install(folder, '2'), 'replace'), (remove, 'unlink')])
def test_folder_that_cannot_be_written_is_one_sentence(folder, monkeypatch, action, method):
    write_older(folder)
    before = contents(folder)

    def refuse(path, *args):
        raise OSError(errno.EROFS, 'Read-only file system')

    with monkeypatch.context() as patch:
        patch.setattr(Path, method, refuse)
        with pytest.raises(UserError, match=r'mmcv cannot be changed \(Read-only file system\); run the command as'):
            action(folder)
    assert contents(folder) == before


@pytest.mark.parametrize(
    ('files', 'reason'),
    [([], "No module named 'mlp_dense'"), (['mlp_dense/operators/left.pyc'], "cannot import name 'extension'")],
)
def test_error_after_mlp_dense_was_uninstalled_names_the_file(folder, files, reason):
    install(folder, '1.2.3')
    for name in files:
        path = folder.parent / name
        path.parent.mkdir(parents=True)
        path.touch()
    line = import_without_packages(folder)
    assert line.startswith(f'ModuleNotFoundError: {folder / "_ext.py"} needs mlp_dense') and reason in line
    assert line.endswith('install mlp_dense, or delete this file.')


def test_error_of_a_package_that_mlp_dense_needs_is_unchanged(folder):
    install(folder, '1.2.3')
    package = folder.parent / 'mlp_dense' / 'operators'
    package.mkdir(parents=True)
    (package / '__init__.py').write_text('import torch')
    assert import_without_packages(folder) == "ModuleNotFoundError: No module named 'torch'"


def test_command_prints_what_it_did(folder, monkeypatch, capsys):
    monkeypatch.setattr('mlp_dense.operators.mmcv_file.mmcv_folder', lambda: folder)

    def start(action: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, 'argv', ['mlp-dense operators', action])
        try:
            operators.main()
            code = 0
        except SystemExit as error:
            code = error.code
        return code, capsys.readouterr().out

    assert start('status')[0] == 1
    for action, printed in (('install', 'Wrote '), ('install', 'Nothing was changed.'), ('status', 'every process')):
        code, text = start(action)
        assert code == 0 and printed in text and str(folder / '_ext.py') in text
    assert start('remove') == (0, f'Removed {folder / "_ext.py"}.\n')
    assert start('status')[1].endswith('imported first.\nRun mlp-dense operators install.\n')


def test_explanation_of_missing_operators_names_the_command():
    text = explain_import(ModuleNotFoundError(name='mmcv._ext'))
    assert text.startswith('mmcv._ext is not installed: mlp-dense operators install, or import mlp_dense.operators')


def write_wheel(folder: Path, version: str) -> Path:
    """Write a wheel of a package mmcv-lite."""
    info, wheel = f'mmcv_lite-{version}.dist-info', folder / f'mmcv_lite-{version}-py3-none-any.whl'
    files = {
        'mmcv/__init__.py': f'__version__ = {version!r}\n',
        f'{info}/METADATA': f'Metadata-Version: 2.1\nName: mmcv-lite\nVersion: {version}\n',
        f'{info}/WHEEL': 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
    }
    files[f'{info}/RECORD'] = ''.join(f'{name},,\n' for name in (*files, f'{info}/RECORD'))
    with zipfile.ZipFile(wheel, 'w') as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return wheel


@pytest.mark.slow
def test_pip_keeps_the_file_when_it_changes_mmcv(tmp_path):
    """In a virtual environment; pip removes only files that it installed."""
    venv.create(tmp_path / 'venv', symlinks=True)
    pip = ['-m', 'pip', '--python', tmp_path / 'venv' / 'bin' / 'python', '--quiet']
    run(*pip, 'install', '--no-index', write_wheel(tmp_path, '2.0.0'))
    (folder,) = (tmp_path / 'venv').glob('lib/python*/site-packages/mmcv')
    install(folder, '1.2.3')
    py_compile.compile(folder / '_ext.py')
    run(*pip, 'install', '--no-index', '--upgrade', write_wheel(tmp_path, '2.1.0'))
    assert '2.1.0' in (folder / '__init__.py').read_text() and status(folder).kind == 'installed'
    run(*pip, 'uninstall', '--yes', 'mmcv-lite')
    assert status(folder).kind == 'left'
    remove(folder)
    assert not folder.exists()


@pytest.mark.slow
def test_mmdet_may_be_imported_before_mlp_dense(linked):
    ours = "from mmengine.registry import MODELS; MODELS.build(dict(type='mlp_dense.DetDataPreprocessor'))"
    explained = run('-c', ours, status=1).strip().splitlines()[-1]
    assert explained.endswith(explain_import(ModuleNotFoundError(name='mmcv._ext')))
    assert run('-m', 'mlp_dense.operators', 'install').startswith(f'Wrote {linked / "_ext.py"}:')
    loaded = set(run('-W', 'ignore', '-c', 'import mmcv._ext, sys; print(*sys.modules)').split())
    assert 'mlp_dense.operators.extension' in loaded and not loaded & {'mmcv.ops', 'mmdet', 'mmseg', 'timm'}
    program = """
from mmdet.registry import MODELS
network = MODELS.build(dict(type='mlp_dense.HireMLP', arch='tiny'))
import mlp_dense.operators, mmcv._ext, torch
from mmcv.ops import nms
kept = nms(torch.tensor([[0., 0, 9, 9], [1, 1, 9, 9]]), torch.tensor([0.5, 0.9]), 0.5)[1].tolist()
from mmcv.utils import collect_env
print(collect_env()['MMCV Compiler'])
print(type(network).__name__, kept, mlp_dense.operators.running() == 'compiled', mmcv._ext.__file__)
"""
    assert run('-W', 'ignore', '-c', program).splitlines()[-2:] == ['n/a', f'HireMLP [1] False {linked / "_ext.py"}']


@pytest.mark.slow
def test_script_of_mmdet_trains_a_config_of_mmdet(linked, shapes, tmp_path, on_cpu):
    install(linked, '1.2.3')
    script = foreign_script('mmdet')
    config = script.parents[1] / 'configs' / 'scratch' / 'faster-rcnn_r50-scratch_fpn_gn-all_6x_coco.py'
    changes = ['train_cfg.max_epochs=1', 'train_dataloader.batch_size=1', 'default_hooks.logger.interval=1']
    changes += ['default_hooks.checkpoint.save_last=False', 'default_hooks.checkpoint.interval=2', *NO_WORKERS]
    for split, resize in (('train', 2), ('val', 1)):
        dataset = f'{split}_dataloader.dataset'
        changes += [
            f'{dataset}.data_root={shapes}/',
            f'{dataset}.ann_file=annotations/instances_{split}.json',
            f'{dataset}.data_prefix.img={split}/',
            f'{dataset}.metainfo.classes=(disc,square,triangle,star,cross)',
            f'{dataset}.indices=2',
            f'{dataset}.pipeline.{resize}.scale=(96,96)',
        ]
    changes.append(f'val_evaluator.ann_file={shapes}/annotations/instances_val.json')
    run(script, config, '--work-dir', tmp_path / 'run', '--cfg-options', *changes)
    log = log_of(tmp_path / 'run')
    assert 'Operators of mmcv: PyTorch fallbacks' in log
    assert re.search(r'Epoch\(train\) +\[1\]\[2/2\]', log) and re.search(r'Epoch\(val\) +\[1\]\[2/2\]', log)
