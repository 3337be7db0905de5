"""Files from strangers: whatever they hold, nothing in them runs, no memory is corrupted, and none is exhausted."""

import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

import mlp_dense
from mlp_dense.checkpoints.reading import Checkpoint, read_checkpoint
from mlp_dense.checkpoints.writing import publish
from mlp_dense.errors import CheckpointError
from support.configs import SEGMENTATION
from support.models import SMALL, official
from support.tools import call
from support.trainings import write_config


class Call:
    """Pickled as a call of a function, and what its result is then given as its state."""

    def __init__(self, function, *args, state=None):
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.reduced


FORGED = {
    'an array of objects': Call(np.ndarray, (3,), 'O', b'A' * 24),
    'an array that is constructed': Call(np.ndarray, (2, 2), 'f8'),
    'an array of more than its bytes': Call(
        np._core.multiarray._reconstruct, np.ndarray, (0,), b'b', state=(1, (2**40,), np.dtype('f4'), False, b'abcd')
    ),
    'an array of objects by its state': Call(
        np._core.multiarray._reconstruct, np.ndarray, (0,), b'b', state=(1, (3,), np.dtype('O'), False, [1, 2, 3])
    ),
    'another kind of array': Call(np._core.multiarray._reconstruct, np.matrix, (0,), b'b'),
    'a long type': Call(np.dtype, 'V999999999'),
    'a type of objects': Call(np.dtype, 'O'),
    'a structured type': Call(np.dtype, [('a', 'O')]),
    'a type with an invented state': Call(
        np.dtype, 'f8', False, True, state=(3, '|', (np.dtype('f8'), (2**30,)), None, None, -1, -1, 0)
    ),
    'a scalar of too few bytes': Call(np._core.multiarray.scalar, np.dtype('f8'), b'ab'),
    'a scalar of an object': Call(np._core.multiarray.scalar, np.dtype('O'), b'A' * 8),
}


@pytest.mark.parametrize('name', FORGED)
@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_forged_numpy_objects(save, name, zipped):
    """As the palette of the classes, whose first use was a segmentation fault."""
    meta = dict(dataset_meta=dict(classes=('a',), palette=FORGED[name]))
    path = save(dict(state_dict={}, meta=meta), 'forged.pth', _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        CheckpointError, match=r'forged\.pth is refused, since loading it could run code: it holds numpy'
    ):
        read_checkpoint(path)


def test_genuine_numpy_objects_are_what_they_were(save):
    arrays = [np.arange(6).reshape(2, 3).astype(kind) for kind in ('?', 'i4', 'i8', 'u1', 'f4', 'f8')]
    arrays += [np.asfortranarray(arrays[-1]), np.empty((0, 3), 'f4'), np.array(2.5)]
    history = HistoryBuffer([1.0, 2.0, 4.0], [1, 1, 1])
    content = dict(arrays=arrays, scalar=np.float64(0.1), history=history, state_dict={})
    for _ in range(2):  # what was read is written and read again
        content = read_checkpoint(save(content, 'plain.pth'))
    for array, read in zip(arrays, content['arrays'], strict=True):
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)
    assert content['scalar'] == 0.1 and content['history'].mean() == history.mean()
    assert type(torch.load(save(content, 'again.pth'), weights_only=False)['arrays'][0]) is np.ndarray


def declared(kind: str) -> torch.Tensor:
    small = torch.zeros(1)
    return {
        'stride 0': lambda: small.expand(2**20, 2**20),
        'overlapping': lambda: torch.zeros(8).as_strided((2**10, 8), (0, 1)),
    }[kind]()


@pytest.mark.parametrize('kind', ['stride 0', 'overlapping'])
@pytest.mark.parametrize('where', ['weights', 'optimizer'])
def test_tensor_larger_than_its_storage(save, tmp_path, kind, where):
    content = dict(state_dict=dict(w=torch.ones(1)), optimizer=dict(state=[{}]))
    (content['state_dict'] if where == 'weights' else content['optimizer']['state'][0])['x'] = declared(kind)
    path = save(content, 'large.pth')
    with pytest.raises(CheckpointError, match=r'large\.pth is refused: a tensor of .* in it has only'):
        publish(path, tmp_path / 'out.pth')


def test_zip_bomb(save, tmp_path):
    """Compressed zeros, of which PyTorch would reserve what the directory declares."""
    path, bomb = save(dict(w=torch.zeros(10_000_000)), 'w.pth'), tmp_path / 'bomb.pth'
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(bomb, 'w', zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    assert bomb.stat().st_size < 100_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match='it declares more bytes than it has'):
        read_checkpoint(bomb)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000, 'kilobytes'


def test_containers_that_hold_one_another(save):
    """A billion laughs: thirty lists, each twice in the next one."""
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


def test_weights_that_are_not_finite(save, tmp_path, log_lines, capsys):
    weights = official(mlp_dense.HireMLP)
    name = next(iter(weights))
    weights[name].view(-1)[0] = float('nan')
    path = save(weights, 'nan.pth')
    model = mlp_dense.HireMLP(SMALL, init_cfg=dict(type='Pretrained', checkpoint=path))
    model.init_weights()
    assert any(
        f'nan.pth: 1 of its weights are not finite (NaN or infinity), first {name}' in line for line in log_lines
    )
    assert call('checkpoint', 'inspect', path) == 0
    assert 'not finite' in capsys.readouterr().out
    with pytest.raises(CheckpointError, match=f'{name} holds NaN'):
        publish(path, tmp_path / 'out.pth')


@pytest.fixture
def trained(shapes, tmp_path):
    """(config, work dir) of a training of two iterations."""
    changes = {'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2, 'default_hooks.checkpoint.interval': 2}
    file, work_dir = write_config(SEGMENTATION, tmp_path, shapes, **changes), tmp_path / 'run'
    assert call('train', file, '--work-dir', work_dir, '--seed', 1) == 0
    return file, work_dir


@pytest.mark.slow
def test_resuming_runs_no_config_of_a_checkpoint(trained, tmp_path):
    file, work_dir = trained
    mark = tmp_path / 'executed'
    content = torch.load(work_dir / 'iter_2.pth', weights_only=False)
    content['meta']['config'] = f"x = open({str(mark)!r}, 'w')"
    torch.save(content, tmp_path / 'bad.pth')
    more = ['--cfg-options', 'train_cfg.max_iters=3']
    assert call('train', file, '--work-dir', tmp_path / 'a', '--resume', tmp_path / 'bad.pth', *more) == 0
    more += ['resume=True', f'load_from={tmp_path / "bad.pth"}']
    assert call('train', file, '--work-dir', tmp_path / 'b', *more) == 0
    assert not mark.exists()
    assert (tmp_path / 'a' / 'iter_3.pth').exists() and (tmp_path / 'b' / 'iter_3.pth').exists()


@pytest.mark.slow
@pytest.mark.parametrize('where', ['a head in the same config', 'load_from', 'resume', 'test', 'predict'])
def test_no_tool_runs_what_a_file_holds(trained, shapes, tmp_path, where, capsys):
    file, work_dir = trained
    mark = tmp_path / 'executed'
    bad = tmp_path / 'evil.pth'
    content = torch.load(work_dir / 'iter_2.pth', weights_only=False)
    torch.save(dict(content, extra=Call(Path.touch, mark)), bad)
    nested = tmp_path / 'nested.py'
    init_cfg = dict(type='Pretrained', checkpoint=str(bad))
    nested.write_text(f"_base_ = './{file.name}'\nmodel = dict(decode_head=dict(init_cfg={init_cfg}))\n")
    config, new = ['train', file], ['--work-dir', tmp_path / 'new']
    command = {
        'a head in the same config': ['train', nested, *new],
        'load_from': [*config, *new, '--cfg-options', f'load_from={bad}'],
        'resume': [*config, *new, '--resume', bad],
        'test': ['test', file, bad, *new],
        'predict': ['predict', shapes / 'val', file, bad, '--out-dir', tmp_path / 'out'],
    }[where]  # fmt: skip
    assert call(*command) == 2
    assert 'evil.pth is refused, since loading it could run code' in capsys.readouterr().err
    assert not mark.exists()


def test_errors_name_the_file(trained, tmp_path, capsys):
    file, work_dir = trained
    other = ['--cfg-options', 'model.backbone.arch.depths=[1,1,1,2]']
    assert call('test', file, work_dir / 'iter_2.pth', '--work-dir', tmp_path / 'new', *other) == 2
    said = capsys.readouterr().err
    assert 'iter_2.pth does not fit HireMLP' in said and 'given state dict' not in said
    assert call('test', file, work_dir, '--work-dir', tmp_path / 'new') == 2
    assert 'is a folder; give a file in it' in capsys.readouterr().err
    assert call('test', file, work_dir / 'none.pth', '--work-dir', tmp_path / 'new') == 2
    assert 'none.pth does not exist' in capsys.readouterr().err


def test_outside_of_our_tools_mmengine_is_as_it_was():
    from mmengine.runner.checkpoint import CheckpointLoader, load_from_local

    assert CheckpointLoader._schemes[''] is load_from_local
