"""Untrusted files: nothing in them is executed, and they neither corrupt nor exhaust memory."""

import io
import pickle
import resource
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

import mlp_dense
from mlp_dense.checkpoints.reading import Checkpoint, read_checkpoint
from mlp_dense.checkpoints.writing import publish
from mlp_dense.errors import CheckpointError
from support.checkpoints import Call
from support.configs import SEGMENTATION
from support.models import SMALL, official
from support.tools import call
from support.trainings import write_config


def _tar() -> bytes:
    with tarfile.open(fileobj=(file := io.BytesIO()), mode='w') as archive:
        for name in ('storages', 'tensors', 'pickle'):
            archive.addfile(tarfile.TarInfo(name))
    return file.getvalue()


def _script() -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), 'w') as archive:
        archive.writestr('script/data.pkl', pickle.dumps({}, 2))
        archive.writestr('script/constants.pkl', pickle.dumps((), 2))
    return file.getvalue()


OTHER_FILES = {
    'nothing': b'',
    'zeros': bytes(20_000),
    'a text': b'hello\nworld\n' * 99,
    'a page': b'<html>',
    'an old archive': _tar(),
    'a program': _script(),
    'a newer pickle': pickle.dumps(dict(w=1), 4),
    'a truncated zip': b'PK\x03\x04' + bytes(99),
}


@pytest.mark.parametrize('suffix', ['pth', 'tar'])
@pytest.mark.parametrize('name', OTHER_FILES)
def test_other_files_are_an_error(tmp_path, name, suffix):
    path = tmp_path / f'other.{suffix}'
    path.write_bytes(OTHER_FILES[name])
    with pytest.raises(CheckpointError, match=r'cannot be read as a PyTorch checkpoint \((neither|it is a)') as error:
        read_checkpoint(path)
    assert '\n' not in str(error.value) and 'weights_only' not in str(error.value)


@pytest.mark.parametrize('protocol', [0, 1, 2, 3, 4])
def test_error_names_the_function_that_a_pickle_calls(tmp_path, protocol):
    path, mark = tmp_path / 'evil.pkl', tmp_path / 'executed'
    path.write_bytes(pickle.dumps(dict(w=Call(Path.touch, mark)), protocol))
    with pytest.raises(CheckpointError, match=r'evil\.pkl is refused, .* it holds (pathlib|__builtin__|builtins)\.'):
        read_checkpoint(path)
    assert not mark.exists()


def test_zip_bomb_is_refused(save, tmp_path):
    """PyTorch reserves the size that the zip directory states, even for a few bytes of compressed zeros."""
    path, bomb = save(dict(w=torch.zeros(10_000_000)), 'w.pth'), tmp_path / 'bomb.pth'
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(bomb, 'w', zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    assert bomb.stat().st_size < 100_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match='it declares more bytes than it has'):
        read_checkpoint(bomb)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000, 'kilobytes'


def test_nested_containers_are_read_once(save):
    """A billion laughs: each of thirty lists occurs twice in the next list."""
    inner: list = []
    for _ in range(30):
        inner = [inner, inner]
    assert read_checkpoint(save(dict(state_dict={}, inner=inner), 'laughs.pth'))['inner']


def test_complex_weights_are_refused(save):
    weights = official(mlp_dense.HireMLP)
    name = next(name for name, tensor in weights.items() if tensor.ndim == 4)
    weights[name] = torch.complex(weights[name], weights[name])
    with pytest.raises(CheckpointError, match='is complex'):
        Checkpoint.read(save(weights, 'complex.pth')).weights  # noqa: B018


def test_not_finite_weights_are_reported_and_not_published(save, tmp_path, log_lines, capsys):
    weights = official(mlp_dense.HireMLP)
    name = next(iter(weights))
    weights[name].view(-1)[0] = float('nan')
    path = save(weights, 'nan.pth')
    model = mlp_dense.HireMLP(SMALL, init_cfg=dict(type='Pretrained', checkpoint=path))
    model.init_weights()
    assert f'nan.pth: 1 of its weights are not finite (NaN or infinity), first {name}' in '\n'.join(log_lines)
    assert call('checkpoint', 'inspect', path) == 0
    assert 'not finite' in capsys.readouterr().out
    with pytest.raises(CheckpointError, match=f'{name} holds NaN'):
        publish(path, tmp_path / 'out.pth')


@pytest.fixture(scope='module')
def trained(shapes, tmp_path_factory):
    """Return (config, work dir) of a training run of two iterations."""
    changes = {'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2, 'default_hooks.checkpoint.interval': 2}
    folder = tmp_path_factory.mktemp('trained')
    file, work_dir = write_config(SEGMENTATION, folder, shapes, **changes), folder / 'run'
    assert call('train', file, '--work-dir', work_dir, '--seed', 1) == 0
    return file, work_dir


@pytest.mark.slow
def test_resuming_does_not_execute_the_config_in_a_checkpoint(trained, tmp_path):
    file, work_dir = trained
    mark = tmp_path / 'executed'
    content = torch.load(work_dir / 'iter_2.pth', weights_only=False)
    content['meta']['config'] = f"x = open({str(mark)!r}, 'w')"
    torch.save(content, tmp_path / 'bad.pth')
    options = ['--cfg-options', 'train_cfg.max_iters=3']
    assert call('train', file, '--work-dir', tmp_path / 'a', '--resume', tmp_path / 'bad.pth', *options) == 0
    options += ['resume=True', f'load_from={tmp_path / "bad.pth"}']
    assert call('train', file, '--work-dir', tmp_path / 'b', *options) == 0
    assert not mark.exists()
    assert (tmp_path / 'a' / 'iter_3.pth').exists() and (tmp_path / 'b' / 'iter_3.pth').exists()


@pytest.mark.slow
@pytest.mark.parametrize('use', ['a head in the same config', 'load_from', 'resume', 'test'])
def test_tools_execute_nothing_in_a_file(trained, tmp_path, use, capsys):
    file, work_dir = trained
    mark = tmp_path / 'executed'
    bad = tmp_path / 'evil.pth'
    content = torch.load(work_dir / 'iter_2.pth', weights_only=False)
    torch.save(dict(content, extra=Call(Path.touch, mark)), bad)
    nested = tmp_path / 'nested.py'
    init_cfg = dict(type='Pretrained', checkpoint=str(bad))
    nested.write_text(f"_base_ = '{file}'\nmodel = dict(decode_head=dict(init_cfg={init_cfg}))\n")
    config, new = ['train', file], ['--work-dir', tmp_path / 'new']
    command = {
        'a head in the same config': ['train', nested, *new],
        'load_from': [*config, *new, '--cfg-options', f'load_from={bad}'],
        'resume': [*config, *new, '--resume', bad],
        'test': ['test', file, bad, *new],
    }[use]  # fmt: skip
    assert call(*command) == 2
    assert 'evil.pth is refused, since loading it could run code' in capsys.readouterr().err
    assert not mark.exists()


BROKEN = {
    'log': lambda content: content.update(message_hub=[]),
    'empty log': lambda content: content.update(message_hub={}),
    'seed': lambda content: content['meta'].update(seed='abc'),
    'optimizer': lambda content: content['optimizer'].update(param_groups=[]),
    'schedule': lambda content: content.update(param_schedulers=5),
}


@pytest.mark.slow
def test_resuming_from_another_training_is_an_error(trained, tmp_path, capsys):
    file, work_dir = trained
    for name, spoil in BROKEN.items():
        content = torch.load(work_dir / 'iter_2.pth', weights_only=False)
        spoil(content)
        torch.save(content, tmp_path / 'bad.pth')
        assert call('train', file, '--work-dir', tmp_path / 'new', '--resume', tmp_path / 'bad.pth') == 2, name
        assert 'bad.pth: its optimizer, schedule or log does not fit this config (' in capsys.readouterr().err


def test_mmengine_is_unchanged_outside_of_our_tools():
    from mmengine.runner.checkpoint import CheckpointLoader, load_from_local

    assert CheckpointLoader._schemes[''] is load_from_local
