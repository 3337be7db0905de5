"""A training run that is stopped anywhere and resumed equals the uninterrupted one bit for bit."""

import signal
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from support.configs import DETECTION, SEGMENTATION
from support.tools import call, log_of
from support.trainings import assert_equal_states, records_of, start, wait, write_config

SEG = dict(train_cfg=dict(max_iters=6, val_interval=3), default_hooks=dict(checkpoint=dict(interval=3)))
DET = {'train_cfg.max_epochs': 2, 'train_cfg.val_interval': 1}
EMA = dict(custom_hooks=[dict(type='EMAHook', momentum=0.1)])
LOADERS = dict(train_dataloader=dict(num_workers=2, persistent_workers=True))
CASES = {
    'at a validation': (SEGMENTATION, SEG, 3),
    'before everything': (SEGMENTATION, SEG, 1),
    'two loading processes': (SEGMENTATION, SEG | LOADERS, 4),
    'accumulated gradients and averaged weights': (
        SEGMENTATION, SEG | EMA | dict(optim_wrapper=dict(accumulative_counts=4)), 5,
    ),
    'iterations over a finite sampler': (
        SEGMENTATION, SEG | {'train_dataloader.sampler': dict(_delete_=True, type='DefaultSampler', shuffle=True)}, 5,
    ),
    'mixed precision with a scaler': (SEGMENTATION, SEG | {'optim_wrapper.type': 'ScaledOnCPU'}, 5),
    'within an epoch': (DETECTION, DET, 6),
    'at the end of an epoch': (DETECTION, DET, 4),
}  # fmt: skip

pytestmark = pytest.mark.usefixtures('on_cpu')


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:Detected call of `scheduler.step:UserWarning')  # of mmengine, with accumulation
@pytest.mark.parametrize('case', CASES)
def test_resumed_training_equals_the_uninterrupted_one(case, shapes, tmp_path):
    base, changes, at = CASES[case]
    file = write_config(base, tmp_path, shapes, **changes)
    assert call('train', file, '--work-dir', tmp_path / 'uninterrupted', '--seed', 3) == 0
    cfg = Config.fromfile(file)
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='SignalHook', at=at, signals=['SIGTERM'])]
    cfg.dump(tmp_path / 'stopping.py')
    broken = tmp_path / 'broken'
    assert call('train', tmp_path / 'stopping.py', '--work-dir', broken, '--seed', 3) == 128 + signal.SIGTERM
    assert not (broken / Path((tmp_path / 'uninterrupted' / 'last_checkpoint').read_text()).name).exists()
    assert call('train', file, '--work-dir', broken, '--resume') == 0  # the seed is that of the checkpoint
    assert records_of(broken) == records_of(tmp_path / 'uninterrupted')
    final = Path((broken / 'last_checkpoint').read_text())
    assert_equal_states(final, tmp_path / 'uninterrupted' / final.name)
    assert {path.name for path in broken.glob('*.pth')} == {
        path.name for path in (tmp_path / 'uninterrupted').glob('*.pth')
    }


def test_order_and_augmentation_are_random(shapes, tmp_path):
    """Without random order and augmentation, the test above could not fail."""
    file = write_config(SEGMENTATION, tmp_path, shapes, **SEG)
    for seed in (3, 4):
        assert call('train', file, '--work-dir', tmp_path / str(seed), '--seed', seed) == 0
    assert records_of(tmp_path / '3') != records_of(tmp_path / '4')
    with pytest.raises(AssertionError):
        assert_equal_states(tmp_path / '3' / 'iter_6.pth', tmp_path / '4' / 'iter_6.pth')


def test_second_signal_stops_immediately(shapes, tmp_path):
    changes = SEG | dict(custom_hooks=[dict(type='SignalHook', at=2, signals=['SIGTERM', 'SIGTERM'])])
    file = write_config(SEGMENTATION, tmp_path, shapes, **changes)
    pid = start(file, '--work-dir', tmp_path / 'run', log=tmp_path / 'log')
    assert wait(pid) == -signal.SIGTERM
    assert not list((tmp_path / 'run').glob('*.pth'))


def test_resumed_training_keeps_a_drawn_seed(shapes, tmp_path):
    """A seed that was drawn also applies after resuming."""
    changes = SEG | dict(custom_hooks=[dict(type='SignalHook', at=5, signals=['SIGINT'])])
    file = write_config(SEGMENTATION, tmp_path, shapes, **changes)
    assert call('train', file, '--work-dir', tmp_path) == 128 + signal.SIGINT
    seed = torch.load(tmp_path / 'resume.pth', weights_only=False)['meta']['seed']
    assert call('train', file, '--work-dir', tmp_path, '--resume', '--cfg-options', 'custom_hooks=[]') == 0
    assert f'seed: {seed}' in log_of(tmp_path)
