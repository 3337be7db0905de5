"""Training and test of each family on genuine images of COCO and ADE20K, and of some on CamVid."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mlp_dense.config.config_file import walk
from support.configs import CONFIGS, thin
from support.tools import NO_WORKERS, before_training, call, log_of

pytestmark = pytest.mark.slow


def for_each(ending: str) -> pytest.MarkDecorator:
    """Run a test with every config whose name has this ending; each family has one."""
    files = [file for file in CONFIGS if file.stem.endswith(ending)]
    return pytest.mark.parametrize('file', files, ids=[file.stem.removesuffix(ending) for file in files])


def small_config(file: Path, folder: Path, scale: tuple[int, int]) -> tuple[Path, Config]:
    """Write a config with few channels whose images are resized to `scale` (long side, short side)."""
    cfg = Config.fromfile(file)
    thin(cfg)
    for _, container, key, value in walk(cfg):
        if key == 'scale' and isinstance(value, (tuple, list)):
            container[key] = scale
        elif key == 'scales' and 'keep_ratio' in container:
            container[key] = [scale, tuple(side * 4 // 5 for side in scale)]
    cfg.dump(folder / file.name)
    return folder / file.name, cfg


COCO = [
    *NO_WORKERS,
    *(f'{name}_dataloader.dataset.indices=2' for name in ('train', 'val', 'test')),
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=2',  # the test evaluates the same checkpoint
    'model.train_cfg.rpn_proposal.max_per_img=50',
    'model.test_cfg.rpn.max_per_img=50',
    'model.test_cfg.rcnn.score_thr=0.0',  # scores are low after one iteration, and no box means no table
]


@for_each('_mask_rcnn_coco')
def test_every_family_trains_on_coco(file, shared, tmp_path, capfd):
    file, cfg = small_config(file, tmp_path, scale=(160, 96))
    where = ['--data-root', shared / 'data' / 'coco_tiny', '--work-dir', tmp_path]
    assert call('train', file, *where, '--cfg-options', *COCO) == 0
    before = before_training(capfd.readouterr().out)
    assert len(before) <= 24 and 'paramwise_options' not in '\n'.join(before)
    assert ('paramwise_options' in log_of(tmp_path)) == ('paramwise_cfg' in cfg.optim_wrapper)
    assert call('test', file, tmp_path / 'epoch_1.pth', *where, '--cfg-options', *COCO) == 0
    log, printed = log_of(tmp_path), capfd.readouterr().out
    for task in ('bbox', 'segm'):
        assert f'Evaluating {task}' in log
        assert f'coco/{task}_mAP ' in printed
    assert 'Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all' in printed


ADE20K = [
    *NO_WORKERS,
    'train_cfg.max_iters=2',
    'train_cfg.val_interval=10',
    'default_hooks.checkpoint.interval=2',
    'train_dataloader.batch_size=2',
    'train_dataloader.dataset.pipeline.3.crop_size=(64,64)',
    'model.data_preprocessor.size=(64,64)',
    # Label maps of 150 classes are enlarged to the size of the image.
    *(f'{name}_dataloader.dataset.indices=1' for name in ('val', 'test')),
]


@for_each('_upernet_ade20k')
def test_every_family_trains_on_ade20k(file, shared, tmp_path):
    file, _ = small_config(file, tmp_path, scale=(256, 64))
    where = ['--data-root', shared / 'data' / 'ade_tiny', '--work-dir', tmp_path]
    assert call('train', file, *where, '--cfg-options', *ADE20K) == 0
    assert call('test', file, tmp_path / 'iter_2.pth', *where, '--cfg-options', *ADE20K) == 0
    log = log_of(tmp_path)
    assert 'aAcc' in log and 'mIoU' in log and 'mAcc' in log and 'wall' in log


@for_each('_semantic_fpn_camvid-240x180')
def test_ignored_label_of_camvid_is_accepted(file, shared, tmp_path, capfd):
    """CamVid ignores the label 11, not 255."""
    file, _ = small_config(file, tmp_path, scale=(60, 45))
    crop = ['train_dataloader.dataset.pipeline.3.crop_size=(45,60)', 'model.data_preprocessor.size=(45,60)']
    where = ['--data-root', shared / 'data' / 'camvid', '--work-dir', tmp_path]
    options = ['--cfg-options', *(option for option in ADE20K if '(64,64)' not in option), *crop]
    assert call('train', file, *where, *options) == 0
    assert 'Problems in the data' not in capfd.readouterr().out
    assert call('test', file, tmp_path / 'iter_2.pth', *where, *options) == 0
    assert 'bicyclist' in log_of(tmp_path)
