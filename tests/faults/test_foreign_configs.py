"""Configs of mmdet and mmsegmentation that inherit _base_/exact_training.py, run by the scripts of these packages.

Each is killed three times and resumed; the result must equal that of an uninterrupted run bit for bit.
"""

import os
import random
import signal
from pathlib import Path
from unittest.mock import patch

import pytest
from mmengine.config import Config
from torch.optim.optimizer import register_optimizer_step_post_hook

from support.configs import DETECTION, SEGMENTATION
from support.trainings import assert_equal_states, foreign_script, records_of, start, wait, write_config

pytestmark = [
    *(pytest.mark.slow, pytest.mark.usefixtures('on_cpu')),
    pytest.mark.filterwarnings('ignore:pkg_resources is deprecated', 'ignore:unclosed file'),  # mmengine reads mmdet::
]

DOCUMENTED = """
_base_ = ['{base}', __import__('mlp_dense').config_path('_base_/exact_training.py')]
train_cfg = _base_.{loop}
default_hooks = _base_.exact_hooks
"""
COMMON = {
    'randomness': dict(seed=7),
    'default_hooks.logger.interval': 1,
    'model.backbone.depth': 18,
    'model.backbone.base_channels': 8,
}
RETINANET = COMMON | {
    'model.backbone.init_cfg': None,
    'model.backbone.norm_eval': False,
    'model.backbone.frozen_stages': -1,
    'model.neck': dict(in_channels=[8, 16, 32, 64], out_channels=16),
    'model.bbox_head': dict(num_classes=5, in_channels=16, feat_channels=16, stacked_convs=1),
    'val_evaluator.metric': 'bbox',
    'train_cfg.max_epochs': 2,
    'optim_wrapper.optimizer.lr': 0.001,
    'default_hooks.checkpoint.minutes': 1e-6,
}
PSPNET = COMMON | {
    'model.pretrained': None,
    'model.data_preprocessor.size': (64, 64),
    'model.decode_head': dict(in_channels=64, channels=16, num_classes=6),
    'model.auxiliary_head': dict(in_channels=32, channels=8, num_classes=6),
    'train_cfg.max_iters': 8,
    'train_cfg.val_interval': 4,
    'default_hooks.checkpoint': dict(interval=2, max_keep_ckpts=2),
}
CASES = {
    'mmdet': ('retinanet/retinanet_r50_fpn_1x_coco', 'exact_epochs', DETECTION, RETINANET, 'epoch_2.pth'),
    'mmseg': (
        *('pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024', 'exact_iters', SEGMENTATION, PSPNET, 'iter_8.pth'),
    ),
}


def write_foreign_config(package: str, data: Path, folder: Path) -> Path:
    """Write the documented config, with few channels, and with the data of this project's quick training runs."""
    base, loop, ours, changes, _ = CASES[package]
    (folder / 'documented.py').write_text(DOCUMENTED.format(base=f'{package}::{base}.py', loop=loop))
    cfg, ours = Config.fromfile(folder / 'documented.py'), Config.fromfile(write_config(ours, folder, data))
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator'):
        cfg[name] = ours[name]
    cfg.merge_from_dict(changes)
    cfg.test_evaluator = cfg.val_evaluator
    cfg.dump(folder / 'foreign.py')
    return folder / 'foreign.py'


def kill_at(number: int) -> None:
    """Make this process kill itself at the `number`-th optimizer step or flush of a file, whichever comes first."""
    events, fsync = iter(range(number, 0, -1)), os.fsync

    def count(*_) -> None:
        if next(events, 0) == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    register_optimizer_step_post_hook(count)
    patch('os.fsync', lambda file: (count(), fsync(file))[1]).start()


@pytest.mark.parametrize('package', CASES)
def test_killed_foreign_training_resumes_bit_for_bit(package, shapes, tmp_path):
    config, final = write_foreign_config(package, shapes, tmp_path), CASES[package][-1]

    def train(work_dir: Path, *options: str, number: int = 0) -> int:
        log = tmp_path / f'{work_dir.name}.log'
        prepare = (lambda: kill_at(number)) if number else (lambda: None)
        arguments = [config, '--work-dir', work_dir, *options]
        status = wait(start(*arguments, log=log, tool=foreign_script(package), prepare=prepare))
        assert status == (-signal.SIGKILL if number else 0), log.read_text()[-4000:]
        return status

    train(tmp_path / 'uninterrupted')
    killed, generator = tmp_path / 'killed', random.Random(package)
    for trial in range(3):
        train(killed, *(['--resume'] if trial else []), number=generator.randint(3, 9))
    train(killed, '--resume')
    assert_equal_states(killed / final, tmp_path / 'uninterrupted' / final)
    assert records_of(killed) == records_of(tmp_path / 'uninterrupted')
    assert not list(killed.glob('.*.unfinished'))


@pytest.mark.parametrize('name', ['yolox/yolox_tiny_8xb8-300e_coco.py', 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py'])
def test_base_file_keeps_custom_hooks(name, tmp_path):
    (tmp_path / 'documented.py').write_text(DOCUMENTED.format(base=f'mmdet::{name}', loop='exact_epochs'))
    cfg = Config.fromfile(tmp_path / 'documented.py')
    foreign = Config.fromfile(foreign_script('mmdet').parents[1] / 'configs' / name)
    assert [hook.type for hook in cfg.custom_hooks] == [hook.type for hook in foreign.custom_hooks]
    assert cfg.train_cfg.type == 'mlp_dense.EpochLoop' and cfg.train_cfg.max_epochs == foreign.train_cfg.max_epochs
    assert cfg.default_hooks.checkpoint.type == 'mlp_dense.CheckpointHook'
    assert cfg.default_hooks.checkpoint.interval == foreign.default_hooks.checkpoint.interval
