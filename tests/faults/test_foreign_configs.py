"""Configs of mmdet and mmsegmentation that inherit _base_/exact_training.py, run by the scripts of these packages.

Each is killed three times and resumed; the result must equal that of an uninterrupted training bit for bit.
"""

import os
import random
import signal
from pathlib import Path
from unittest.mock import patch

import pytest
from mmengine.config import Config
from torch.optim.optimizer import register_optimizer_step_post_hook

from support.trainings import assert_equal_states, foreign_script, records_of, start, wait

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('on_cpu')]

DOCUMENTED = """
_base_ = ['{base}', __import__('mlp_dense').config_path('_base_/exact_training.py')]
train_cfg = _base_.{loop}
default_hooks = _base_.exact_hooks
"""
RETINANET = """
_base_ = './documented.py'
randomness = dict(seed=7)
classes = ('disc', 'square', 'triangle', 'star', 'cross')
model = dict(
    backbone=dict(depth=18, base_channels=8, init_cfg=None, norm_eval=False, frozen_stages=-1),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    bbox_head=dict(num_classes=5, in_channels=16, feat_channels=16, stacked_convs=1))
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
random = [dict(type='RandomFlip', prob=0.5), dict(type='PhotoMetricDistortion')]
loader = dict(batch_size=2, num_workers=0, persistent_workers=False)
dataset = dict(data_root='{data}/', metainfo=dict(classes=classes))
train_dataloader = dict(**loader, dataset=dict(
    **dataset, ann_file='annotations/instances_train.json', data_prefix=dict(img='train/'), indices=8,
    pipeline=[*load, *random, dict(type='PackDetInputs')]))
val_dataloader = dict(**loader, dataset=dict(
    **dataset, ann_file='annotations/instances_val.json', data_prefix=dict(img='val/'), indices=2,
    pipeline=[load[0], dict(type='Resize', scale=(96, 96)), load[1], dict(type='PackDetInputs', meta_keys=(
        'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='{data}/annotations/instances_val.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=2)
optim_wrapper = dict(optimizer=dict(lr=0.001))
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(minutes=1e-6))
"""
PSPNET = """
_base_ = './documented.py'
randomness = dict(seed=7)
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(depth=18, base_channels=8),
    decode_head=dict(in_channels=64, channels=16, num_classes=5),
    auxiliary_head=dict(in_channels=32, channels=8, num_classes=5))
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
random = [dict(type='RandomCrop', crop_size=(64, 64)), dict(type='RandomFlip', prob=0.5),
          dict(type='PhotoMetricDistortion')]
loader = dict(batch_size=2, num_workers=0, persistent_workers=False)
dataset = dict(
    _delete_=True, type='BaseSegDataset', data_root='{data}/', img_suffix='.jpg', seg_map_suffix='.png',
    reduce_zero_label=True,
    metainfo=dict(classes=('background', 'disc', 'square', 'triangle', 'star', 'cross')))
model['decode_head']['num_classes'] = model['auxiliary_head']['num_classes'] = 6
train_dataloader = dict(**loader, dataset=dict(
    **dataset, data_prefix=dict(img_path='train', seg_map_path='labels/train'), indices=8,
    pipeline=[*load, *random, dict(type='PackSegInputs')]))
val_dataloader = dict(**loader, dataset=dict(
    **dataset, data_prefix=dict(img_path='val', seg_map_path='labels/val'), indices=2,
    pipeline=[*load, dict(type='PackSegInputs')]))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=8, val_interval=4)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2, max_keep_ckpts=2))
"""
CASES = {
    'mmdet': ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'exact_epochs', RETINANET, 'epoch_2.pth'),
    'mmseg': ('mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'exact_iters', PSPNET, 'iter_8.pth'),
}


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
    base, loop, changes, final = CASES[package]
    (tmp_path / 'documented.py').write_text(DOCUMENTED.format(base=base, loop=loop))
    config = tmp_path / 'config.py'
    config.write_text(changes.replace('{data}', str(shapes)))

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
    assert not list(killed.glob('.*'))


@pytest.mark.filterwarnings('ignore:pkg_resources is deprecated', 'ignore:unclosed file')  # mmengine reads mmdet::
@pytest.mark.parametrize('name', ['yolox/yolox_tiny_8xb8-300e_coco.py', 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py'])
def test_base_file_keeps_custom_hooks(name, tmp_path):
    (tmp_path / 'documented.py').write_text(DOCUMENTED.format(base=f'mmdet::{name}', loop='exact_epochs'))
    cfg, foreign = Config.fromfile(tmp_path / 'documented.py'), Config.fromfile(f'{mmdet_configs()}/{name}')
    assert [hook.type for hook in cfg.custom_hooks] == [hook.type for hook in foreign.custom_hooks]
    assert cfg.train_cfg.type == 'mlp_dense.EpochLoop' and cfg.train_cfg.max_epochs == foreign.train_cfg.max_epochs
    assert cfg.default_hooks.checkpoint.type == 'mlp_dense.CheckpointHook'
    assert cfg.default_hooks.checkpoint.interval == foreign.default_hooks.checkpoint.interval


def mmdet_configs() -> Path:
    return foreign_script('mmdet').parents[1] / 'configs'
