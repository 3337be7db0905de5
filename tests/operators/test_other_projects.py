"""Scripts of other projects, with the operators of mmcv that are installed."""

import re
import subprocess
import sys

import pytest

from support.configs import ROOT
from support.tools import NO_WORKERS, call, log_of

SMALL = """
cfg.model.backbone.arch = dict(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32))
cfg.model.neck.in_channels = [8, 16, 24, 32]
cfg.train_cfg.max_epochs = 1
cfg.merge_from_dict({'model.train_cfg.rpn_proposal.max_per_img': 50, 'model.test_cfg.rcnn.score_thr': 0.0})
for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
    loader.update(num_workers=0, persistent_workers=False)
    loader.dataset.indices = 2
    loader.dataset.pipeline[1 + (loader is cfg.train_dataloader)].scale = (128, 96)
"""


@pytest.mark.slow
def test_script_of_the_heads_page_trains_and_tests(shared, tmp_path):
    page = (ROOT / 'docs' / 'heads.md').read_text(encoding='utf-8')
    script = re.search(r'```python\n(import mlp_dense.operators\n.*?)```', page, re.DOTALL)[1]
    before, build, after = script.partition('runner = ')
    assert len(script.split('\n')) <= 13
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/coco').symlink_to(shared / 'data/coco_tiny')
    command = [sys.executable, '-c', before + SMALL + build + after]
    completed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr[-2000:]
    assert completed.stdout.count('bbox_mAP_copypaste') == 2 and 'Epoch(test)' in completed.stdout
    assert next(tmp_path.glob('work_dirs/faster_rcnn/epoch_1.pth')).is_file()


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:.*pkg_resources')  # raised by mmengine if a config names another package
def test_config_of_the_readme_trains_and_tests(shared, tmp_path):
    """The config inherits mmdet's own RetinaNet, in which mmengine inserts `_scope_`."""
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    text = re.search(r"```python\n(_base_ = 'mmdet::.*?)```", readme, re.DOTALL)[1]
    file = tmp_path / 'config.py'
    text = text.replace("arch='small'", 'arch=dict(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32))')
    file.write_text(text.replace('[128, 320, 512]', '[16, 24, 32]'))
    changes = ['train_cfg.max_epochs=1', 'model.test_cfg.score_thr=0.0', *NO_WORKERS]
    for name, resize in (('train', 2), ('val', 1), ('test', 1)):
        dataset = f'{name}_dataloader.dataset'
        changes += [f'{dataset}.indices=2', f'{dataset}.pipeline.{resize}.scale=(128,96)']
    options = ['--data-root', shared / 'data' / 'coco_tiny', '--work-dir', tmp_path / 'run', '--cfg-options', *changes]
    assert call('train', file, *options) == 0
    assert call('test', file, tmp_path / 'run' / 'epoch_1.pth', *options) == 0
    assert 'coco/bbox_mAP' in log_of(tmp_path / 'run')
