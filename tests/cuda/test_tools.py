"""The tools on a GPU: training in mixed precision, resuming, testing, and one process under NCCL."""

import json
import signal
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from support.configs import DETECTION, SEGMENTATION, thin_config
from support.devices import DEVICE
from support.models import differing
from support.tools import NO_WORKERS, call, log_of, run
from support.trainings import assert_equal_states, records_of, write_config

AMP = ['--amp'] if DEVICE == 'cuda' else []
QUICK = {
    DETECTION: {'train_cfg.max_epochs': 2, 'train_cfg.val_interval': 1},
    SEGMENTATION: {'train_cfg.max_iters': 8, 'train_cfg.val_interval': 4, 'default_hooks.checkpoint.interval': 4},
}

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('device')]


def stopping(config: Path, at: int) -> Path:
    """Write a config whose training stops after `at` iterations."""
    cfg = Config.fromfile(config)
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='SignalHook', at=at, signals=['SIGTERM'])]
    cfg.dump(config.with_name('stopping.py'))
    return config.with_name('stopping.py')


@pytest.mark.parametrize('base', QUICK, ids=lambda base: Path(base).stem)
def test_trains_resumes_and_tests(base, shapes, tmp_path):
    config, work_dir = write_config(base, tmp_path, shapes, **QUICK[base]), tmp_path / 'run'
    stopped = call('train', stopping(config, at=4), '--work-dir', work_dir, '--seed', 0, *AMP)
    assert stopped == 128 + signal.SIGTERM
    first = torch.load((work_dir / 'last_checkpoint').read_text(), weights_only=False)['state_dict']
    assert call('train', config, '--work-dir', work_dir, '--resume', *AMP) == 0
    losses = {step: record['loss'] for (step, trains), record in records_of(work_dir).items() if trains}
    assert list(losses) == [*range(1, 9)]
    checkpoint = Path((work_dir / 'last_checkpoint').read_text())
    content = torch.load(checkpoint, weights_only=False)
    assert ('loss_scaler' in content['optimizer']) == bool(AMP)
    assert ('cuda' in content['mlp_dense_state']['processes'][0]) == torch.cuda.is_available()
    assert differing(content['state_dict'], first)
    assert call('test', config, checkpoint, '--work-dir', tmp_path / 'test') == 0
    metrics = json.loads((tmp_path / 'test' / 'metrics.json').read_text())
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= set(metrics) or 'mIoU' in metrics


def test_resumed_is_uninterrupted(shapes, tmp_path, as_before):
    """Bit for bit: two epochs at once, and one after the other."""
    config = write_config(DETECTION, tmp_path, shapes, **QUICK[DETECTION])
    options, uninterrupted, broken = ['--seed', 3, '--deterministic', *AMP], tmp_path / 'one', tmp_path / 'two'
    assert call('train', config, '--work-dir', uninterrupted, *options) == 0
    assert call('train', stopping(config, at=4), '--work-dir', broken, *options) == 128 + signal.SIGTERM
    assert not (broken / 'epoch_2.pth').exists()
    assert call('train', config, '--work-dir', broken, '--resume', *options) == 0
    assert torch.are_deterministic_algorithms_enabled()
    assert repr(records_of(broken)) == repr(records_of(uninterrupted))  # NaN, of a step that the scaler skipped, too
    assert_equal_states(broken / 'epoch_2.pth', uninterrupted / 'epoch_2.pth')


@pytest.mark.parametrize('task', ['detection/hire_mlp_mask_rcnn_shapes', 'segmentation/hire_mlp_upernet_shapes'])
def test_one_process_of_torchrun_with_sync_bn(task, shapes, tmp_path):
    """Under NCCL on a GPU."""
    length = 'train_cfg.max_epochs=1' if 'detection' in task else 'train_cfg.max_iters=4'
    options = [length, 'train_cfg.val_interval=9', 'default_hooks.logger.interval=1', *NO_WORKERS]
    options += ['model.backbone.norm_cfg.type=SyncBN', 'default_hooks.checkpoint.interval=1']
    torchrun = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=1', 'tools/train.py']
    where = ['--launcher', 'pytorch', '--data-root', shapes, '--work-dir', tmp_path / 'run']
    run(*torchrun, thin_config(task, tmp_path), *where, '--seed', 0, *AMP, '--cfg-options', *options)
    assert 'Distributed launcher: pytorch' in log_of(tmp_path / 'run')
    state = torch.load((tmp_path / 'run' / 'last_checkpoint').read_text(), weights_only=False)['state_dict']
    counts = [value.item() for name, value in state.items() if name.endswith('num_batches_tracked')]
    assert counts and min(counts) >= 2 and all(value.isfinite().all() for value in state.values())
