"""Checkpoints that are written, resumed and removed."""

import io
import os
import shutil
from pathlib import Path

import pytest
import torch

from mlp_dense.checkpoints.atomic import damage, newest_checkpoint, step_in, write_whole
from mlp_dense.errors import CheckpointError, UserError
from mlp_dense.training.checkpoint_hook import CheckpointHook
from support.configs import DETECTION, SEGMENTATION
from support.tools import call, log_of
from support.trainings import assert_equal_states, write_config

SHORT = {'train_cfg.max_iters': 4, 'train_cfg.val_interval': 2, 'default_hooks.checkpoint.interval': 2}


def saved(path: Path, **content) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(state_dict=dict(a=torch.ones(1000)), **content), buffer)
    path.write_bytes(buffer.getvalue())
    return buffer.getvalue()


def test_writing_is_atomic(tmp_path, monkeypatch):
    path = tmp_path / 'iter_1.pth'
    data = saved(path)
    with pytest.raises(UserError, match='cannot be read back'):
        write_whole(path, data[:-100])
    with monkeypatch.context() as patched:
        patched.setattr('os.fsync', lambda file: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
        with pytest.raises(UserError, match='No space left on device'):
            write_whole(path, data + data)
    assert path.read_bytes() == data and os.listdir(tmp_path) == ['iter_1.pth']


@pytest.mark.parametrize('defect', ['empty', 'cut', 'zeros', 'a changed byte'])
def test_damage_is_detected(tmp_path, defect):
    path = tmp_path / 'iter_1.pth'
    data = saved(path)
    assert damage(path) == ''
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    path.write_bytes({'empty': b'', 'cut': data[:-10], 'zeros': bytes(len(data)), 'a changed byte': changed}[defect])
    assert damage(path)


def test_newest_intact_checkpoint_is_chosen(tmp_path):
    for step in (2, 4, 10):
        saved(tmp_path / f'iter_{step}.pth')
    pointer = tmp_path / 'last_checkpoint'
    assert newest_checkpoint(tmp_path) == (tmp_path / 'iter_10.pth', [])
    for text in ('', 'nowhere/iter_11.pth', '\0'):
        pointer.write_text(text)
        assert newest_checkpoint(tmp_path)[0] == tmp_path / 'iter_10.pth'
    pointer.write_text('/an/older/place/iter_4.pth')  # written last, in a folder that was moved
    assert newest_checkpoint(tmp_path) == (tmp_path / 'iter_4.pth', [])
    for step, skipped in (
        (4, ['iter_4.pth: it is empty']),
        (10, ['iter_4.pth: it is empty', 'iter_10.pth: it is empty']),
    ):
        (tmp_path / f'iter_{step}.pth').write_bytes(b'')
        path, reasons = newest_checkpoint(tmp_path)
        assert path.name == ('iter_10.pth' if step == 4 else 'iter_2.pth') and reasons == skipped
    (tmp_path / 'iter_2.pth').write_bytes(b'')
    with pytest.raises(CheckpointError, match=r'No checkpoint in .* is complete \(iter_4.pth: it is empty; iter_10'):
        newest_checkpoint(tmp_path)
    assert newest_checkpoint(tmp_path / 'absent') == (None, [])


@pytest.fixture(scope='module')
def original(shapes, tmp_path_factory):
    """Return config and work dir of a training run of four iterations."""
    folder = tmp_path_factory.mktemp('original')
    file = write_config(SEGMENTATION, folder, shapes, **SHORT)
    assert call('train', file, '--work-dir', folder / 'run', '--seed', 1) == 0
    return file, folder / 'run'


@pytest.fixture
def trained(original, tmp_path):
    """Return the config and a copy of the work dir, as if it was moved."""
    file, work_dir = original
    return file, shutil.copytree(work_dir, tmp_path / 'run')


MORE = ['--cfg-options', 'train_cfg.max_iters=6']


def test_moved_work_dir_resumes_its_newest_intact_checkpoint(trained, tmp_path, capsys):
    file, work_dir = trained
    moved = work_dir.rename(tmp_path / 'moved')
    (moved / 'last_checkpoint').write_text('')
    (moved / 'iter_4.pth').write_bytes(b'half')
    (moved / '.iter_5.pth.17.unfinished').write_bytes(b'half')
    assert call('train', file, '--work-dir', moved, '--resume', *MORE) == 0
    printed = capsys.readouterr().out
    assert 'Skipped: iter_4.pth: it is incomplete' in printed and 'iteration 2' in printed
    assert not list(moved.glob('.*.unfinished')) and (moved / 'iter_6.pth').exists()


def test_resuming_honours_filename_tmpl(shapes, tmp_path, capsys):
    """Also if the pointer is lost and the newest checkpoint is damaged."""
    named = {'default_hooks.checkpoint.filename_tmpl': 'step_{:04d}.pth', 'default_hooks.checkpoint.max_keep_ckpts': 2}
    file, work_dir = write_config(SEGMENTATION, tmp_path, shapes, **SHORT, **named), tmp_path / 'run'
    assert call('train', file, '--work-dir', work_dir, '--seed', 1) == 0
    assert sorted(path.name for path in work_dir.glob('step_*')) == ['step_0002.pth', 'step_0004.pth']
    (work_dir / 'last_checkpoint').unlink()
    assert call('train', file, '--work-dir', work_dir) == 2
    assert 'contains a training run already (step_0004.pth)' in capsys.readouterr().err
    (work_dir / 'step_0004.pth').write_bytes(b'half')
    assert call('train', file, '--work-dir', work_dir, '--resume', *MORE) == 0
    printed = capsys.readouterr().out
    assert 'Skipped: step_0004.pth: it is incomplete' in printed and 'iteration 2' in printed
    assert sorted(path.name for path in work_dir.glob('step_*')) == ['step_0004.pth', 'step_0006.pth']


@pytest.mark.parametrize(
    ('name', 'template', 'step'),
    [
        ('iter_12.pth', 'iter_{}.pth', 12),
        ('step_0012.pth', 'step_{:04d}.pth', 12),
        ('iter_x.pth', 'iter_{}.pth', None),
        ('best_iter_12.pth', 'iter_{}.pth', None),
        ('iter_12xpth', 'iter_{}.pth', None),
        ('last.pth', 'last.pth', None),
    ],
)
def test_step_in_name(name, template, step):
    assert step_in(name, template) == step


def test_remote_checkpoints_are_refused():
    petrel = dict(backend='petrel')
    backends = dict(backend_args=petrel), dict(file_client_args=petrel)
    for arguments in (dict(out_dir='s3://bucket'), *backends, dict(published_keys=['meta'])):
        with pytest.raises(UserError, match=r"set default_hooks\.checkpoint\.type='CheckpointHook'"):
            CheckpointHook(interval=1, **arguments)


@pytest.mark.parametrize('backend', ['local', 'disk'])
@pytest.mark.parametrize('setting', ['backend_args', 'file_client_args'])
def test_local_backends_are_replaced_by_atomic_files(setting, backend):
    hook = CheckpointHook(interval=1, **{setting: dict(backend=backend)})
    assert hook.backend_args == dict(backend='mlp_dense') and hook.file_client_args is None


def hostile(checkpoint: Path, target: Path, out: Path) -> Path:
    """Write a checkpoint that names foreign files as its own."""
    content = torch.load(checkpoint, weights_only=False)
    content['message_hub']['runtime_info'].update(
        best_ckpt=str(target), best_score=-1.0, last_ckpt=str(target), keep_ckpt_ids=['../victim/keep', str(target)] * 9
    )
    torch.save(content, out)
    return out


def test_only_files_of_the_hook_are_removed(trained, tmp_path):
    """Files that a checkpoint names, the best one of another run and files with other names stay."""
    file, work_dir = trained
    victim = tmp_path / 'victim' / 'best_mIoU_iter_2.pth'
    victim.mkdir(parents=True)
    (victim / 'thesis.txt').write_text('of years')
    link = tmp_path / 'new' / 'iter_1.pth'
    link.parent.mkdir()
    link.symlink_to(victim / 'thesis.txt')
    (tmp_path / 'new' / 'iter_x.pth').write_text('mine')
    before = sorted(work_dir.glob('*.pth'))
    bad = hostile(work_dir / 'iter_2.pth', victim, tmp_path / 'bad.pth')
    more = ['--cfg-options', 'train_cfg.max_iters=6', 'default_hooks.checkpoint.max_keep_ckpts=1']
    assert call('train', file, '--work-dir', tmp_path / 'new', '--resume', bad, *more) == 0
    assert (victim / 'thesis.txt').read_text() == 'of years'
    assert link.is_symlink() and (tmp_path / 'new' / 'iter_x.pth').exists()
    assert sorted(work_dir.glob('*.pth')) == before
    assert (tmp_path / 'new' / 'iter_6.pth').exists() and not (tmp_path / 'new' / 'iter_4.pth').exists()


def test_resumed_checkpoint_and_later_ones_stay(trained):
    """Resuming an earlier checkpoint removes neither it nor the later ones."""
    file, work_dir = trained
    more = ['--cfg-options', 'train_cfg.max_iters=3', 'default_hooks.checkpoint.max_keep_ckpts=1']
    assert call('train', file, '--work-dir', work_dir, '--resume', work_dir / 'iter_2.pth', *more) == 0
    assert {path.name for path in work_dir.glob('iter_*.pth')} == {'iter_3.pth', 'iter_4.pth'}
    assert newest_checkpoint(work_dir)[0] == work_dir / 'iter_3.pth'


def test_minutes_write_checkpoints(shapes, tmp_path):
    hook = {'default_hooks.checkpoint.minutes': 0.0001, 'default_hooks.checkpoint.interval': 3}
    file = write_config(SEGMENTATION, tmp_path, shapes, **(SHORT | hook))
    assert call('train', file, '--work-dir', tmp_path) == 0
    assert not (tmp_path / 'resume.pth').exists(), 'a regular checkpoint replaces it'
    more = ['--cfg-options', 'train_cfg.max_iters=5', 'default_hooks.checkpoint.save_last=False']
    assert call('train', file, '--work-dir', tmp_path, '--resume', *more) == 0
    assert newest_checkpoint(tmp_path)[0].name == 'resume.pth'
    assert torch.load(tmp_path / 'resume.pth', weights_only=False)['meta']['iter'] == 5


@pytest.mark.parametrize('at', [2, 3], ids=['at the end of an epoch', 'within an epoch'])
def test_changed_batch_size_resumes_only_between_epochs(shapes, tmp_path, at, capsys):
    """Eight images in batches of four are an epoch of two iterations."""
    hook = dict(type='SignalHook', at=at, signals=['SIGTERM'])
    changes = {'train_cfg.max_epochs': 2, 'train_cfg.val_interval': 2, 'train_dataloader.batch_size': 4}
    file = write_config(DETECTION, tmp_path, shapes, **changes, custom_hooks=[hook])
    assert call('train', file, '--work-dir', tmp_path / 'run') == 143
    capsys.readouterr()
    less = ['--cfg-options', 'train_dataloader.batch_size=2', 'custom_hooks=[]']
    status = call('train', file, '--work-dir', tmp_path / 'run', '--resume', *less)
    printed = capsys.readouterr()
    if at == 3:
        assert status == 2 and 'saved within an epoch of 1 process with 2 batches' in printed.err
    else:
        assert status == 0 and 'Resumed with 1 process with 4 batches instead of' in printed.out
        assert 'Epoch(train) [2][4/4]' in log_of(tmp_path / 'run')


def test_number_of_loading_processes_does_not_matter(on_cpu, shapes, tmp_path):
    """Augmentation depends only on the seed, the epoch and the image."""
    for name, workers in (('none', 0), ('two', 2)):
        loader = dict(num_workers=workers, persistent_workers=False)
        file = write_config(SEGMENTATION, tmp_path, shapes, **SHORT, train_dataloader=loader)
        assert call('train', file, '--work-dir', tmp_path / name, '--seed', 5) == 0
    assert_equal_states(tmp_path / 'none' / 'iter_4.pth', tmp_path / 'two' / 'iter_4.pth')
