"""Training and test on genuine images of CamVid; `test_short_options.py` uses those of COCO and ADE20K."""

import pytest

from support.configs import thin_config
from support.tools import call, log_of


@pytest.mark.slow
def test_ignored_label_of_camvid_is_accepted(shared, tmp_path, capfd):
    """CamVid ignores the label 11, not 255."""
    file = thin_config('segmentation/cycle_mlp_b1_semantic_fpn_camvid-240x180', tmp_path)
    where = ['--data-root', shared / 'data' / 'camvid', '--work-dir', tmp_path / 'run', '--img-scale', 60, 45]
    few = ['--workers', 0, '--cfg-options', *(f'{name}_dataloader.dataset.indices=2' for name in ('val', 'test'))]
    assert call('train', file, *where, '--iters', 2, '--batch-size', 2, *few) == 0
    assert 'Problems in the data' not in capfd.readouterr().out
    assert call('test', file, tmp_path / 'run' / 'iter_2.pth', *where, *few) == 0
    assert 'bicyclist' in log_of(tmp_path / 'run')
