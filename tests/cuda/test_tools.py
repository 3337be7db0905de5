"""The tools on a GPU: training in mixed precision, resuming, testing, and one process under NCCL."""

import json
import signal

import pytest
import torch
from mmengine.config import Config

from support.configs import DETECTION, thin_config
from support.devices import DEVICE
from support.models import differing
from support.tools import NO_WORKERS, call, log_of, run
from support.trainings import assert_equal_states, records_of, write_config

AMP = ['--amp'] if DEVICE == 'cuda' else []
QUICK = {'train_cfg.max_epochs': 2, 'train_cfg.val_interval': 1}

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('device')]


def test_resumed_training_equals_the_uninterrupted_one(shapes, tmp_path, as_before):
    """Bit for bit, with the state of the GPU's random numbers and of the scaler."""
    config = write_config(DETECTION, tmp_path, shapes, **QUICK)
    options, uninterrupted, broken = ['--seed', 3, '--deterministic', *AMP], tmp_path / 'one', tmp_path / 'two'
    assert call('train', config, '--work-dir', uninterrupted, *options) == 0
    cfg = Config.fromfile(config)
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='SignalHook', at=4, signals=['SIGTERM'])]
    cfg.dump(tmp_path / 'stopping.py')
    assert call('train', tmp_path / 'stopping.py', '--work-dir', broken, *options) == 128 + signal.SIGTERM
    first = torch.load((broken / 'last_checkpoint').read_text(), weights_only=False)['state_dict']
    assert not (broken / 'epoch_2.pth').exists()
    assert call('train', config, '--work-dir', broken, '--resume', *options) == 0
    assert torch.are_deterministic_algorithms_enabled()
    assert repr(records_of(broken)) == repr(records_of(uninterrupted))  # NaN, of a step that the scaler skipped, too
    assert_equal_states(broken / 'epoch_2.pth', uninterrupted / 'epoch_2.pth')
    content = torch.load(broken / 'epoch_2.pth', weights_only=False)
    assert ('loss_scaler' in content['optimizer']) == bool(AMP) and differing(content['state_dict'], first)
    assert ('cuda' in content['mlp_dense_state']['processes'][0]) == torch.cuda.is_available()
    assert call('test', config, broken / 'epoch_2.pth', '--work-dir', tmp_path / 'test') == 0
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= json.loads((tmp_path / 'test' / 'metrics.json').read_text()).keys()


def test_one_process_of_torchrun_with_sync_bn(shapes, tmp_path):
    """Under NCCL on a GPU."""
    task = 'segmentation/hire_mlp_upernet_shapes'
    options = ['train_cfg.max_iters=4', 'train_cfg.val_interval=9', 'default_hooks.logger.interval=1', *NO_WORKERS]
    options += ['model.backbone.norm_cfg.type=SyncBN', 'default_hooks.checkpoint.interval=1']
    torchrun = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=1', 'tools/train.py']
    where = ['--launcher', 'pytorch', '--data-root', shapes, '--work-dir', tmp_path / 'run']
    run(*torchrun, thin_config(task, tmp_path), *where, '--seed', 0, *AMP, '--cfg-options', *options)
    assert 'Distributed launcher: pytorch' in log_of(tmp_path / 'run')
    state = torch.load((tmp_path / 'run' / 'last_checkpoint').read_text(), weights_only=False)['state_dict']
    counts = [value.item() for name, value in state.items() if name.endswith('num_batches_tracked')]
    assert counts and min(counts) >= 2 and all(value.isfinite().all() for value in state.values())
