"""Options for a quick trial of a published config: sizes and durations, from training to prediction."""

import re
from pathlib import Path

import cv2
import pytest
from mmengine.config import Config

from support.configs import DETECTION, thin_config
from support.tools import call, log_of

THIN = dict(detection='detection/hire_mlp_mask_rcnn_coco', segmentation='segmentation/hire_mlp_upernet_ade20k')
FEW = [f'{name}_dataloader.dataset.indices=2' for name in ('train', 'val', 'test')]
FEW_BOXES = ['model.test_cfg.rcnn.score_thr=0.0', 'model.train_cfg.rpn_proposal.max_per_img=50']
CASES = {
    'detection': ('coco_tiny', ['--img-scale', 160, 96], '--epochs', FEW_BOXES),
    'segmentation': ('ade_tiny', ['--img-scale', 256, 64], '--iters', []),
}


@pytest.mark.slow
@pytest.mark.parametrize('task', CASES)
def test_quick_trial_trains_tests_and_predicts(task, shared, tmp_path, capsys):
    data, sizes, length, options = CASES[task]
    file = thin_config(THIN[task], tmp_path)
    where = ['--data-root', shared / 'data' / data, '--work-dir', tmp_path / 'run']
    quick = [*sizes, '--batch-size', 2, '--workers', 0]
    more = ['--cfg-options', *FEW, *options]
    assert call('train', file, *where, *quick, length, 2, '--seed', 0, *more) == 0
    console = capsys.readouterr().out
    scale = f'({sizes[1]}, {sizes[2]})'
    changes = [line for line in console.splitlines() if re.match(r'[\w.]+: .+ -> ', line)]
    assert any(line.endswith(f'-> {scale}') for line in changes)
    assert 'test_dataloader.num_workers: ' in '\n'.join(changes)
    assert re.search(r'eta: 0:00:00  end: (after )?\d{4}-\d\d-\d\d \d\d:\d\d  time', console)
    validations = re.findall(r'\(val\).*(?:mIoU|bbox_mAP): ', log_of(tmp_path / 'run'))
    assert len(validations) == (2 if length == '--epochs' else 1), 'as often as the config, at least at the end'
    saved = Config.fromfile(tmp_path / 'run' / Path(file).name)
    checkpoint = (tmp_path / 'run' / 'last_checkpoint').read_text()
    assert checkpoint.endswith('epoch_2.pth' if length == '--epochs' else 'iter_2.pth')
    assert saved.train_cfg['max_epochs' if length == '--epochs' else 'max_iters'] == 2
    if task == 'detection':
        assert 'paramwise_options' in log_of(tmp_path / 'run') and 'paramwise_options' not in console
    else:
        assert saved.model.data_preprocessor.size == (64, 64) and ' mIoU: ' in log_of(tmp_path / 'run')
    drawn = ['--show-dir', tmp_path / 'drawn', '--score-thr', 0.01]
    assert call('test', file, checkpoint, *where, *sizes, '--batch-size', 1, '--workers', 0, *drawn, *more) == 0
    console = capsys.readouterr().out
    assert 'test_dataloader.dataset.pipeline.1.scale: ' in console
    assert task != 'detection' or ('Evaluating segm' in log_of(tmp_path / 'run') and 'coco/segm_mAP ' in console)
    assert len(list((tmp_path / 'drawn').rglob('*.png'))) == 2
    image = next((shared / 'data' / data).rglob('*.jpg'))
    assert call('predict', image, file, checkpoint, '--out-dir', tmp_path / 'out', *sizes) == 0
    console = capsys.readouterr().out
    assert f'-> {scale}' in console and '1 image: results are in' in console


def test_dry_run_accepts_sizes_and_durations(shapes, tmp_path, capsys):
    thin = thin_config('segmentation/hire_mlp_upernet_shapes', tmp_path)
    where = ['--data-root', shapes, '--work-dir', tmp_path / 'run', '--dry-run']
    assert call('train', thin, *where, '--img-scale', 64, '--batch-size', 4, '--iters', 4) == 0
    output = capsys.readouterr().out
    assert 'train_cfg.max_' in output and 's with 4 images' in output and '4 iterations and 1 validation' in output
    assert 'train_dataloader.dataset.pipeline.2: new, ' in output and not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('tool', 'arguments', 'sentence'),
    [
        ('train', ['--img-scale', 96, 160], '--img-scale 96 160: pass the long and the short side'),
        ('train', ['--iters', 5], 'has no valid train_cfg.max_iters; use --epochs.'),
        ('test', ['--workers', -1], 'test_dataloader.num_workers is -1; set a whole number of 0 or more.'),
        ('test', ['--show-dir', 'drawn', '--score-thr', 1.5], '--score-thr is 1.5; use a number from 0 to 1.'),
        ('test', ['--crop-size', 32, 32], 'the test of '),
    ],
)
def test_invalid_value_is_explained(tool, arguments, sentence, shapes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    checkpoint = ['weights.pth'] if tool == 'test' else []
    assert call(tool, DETECTION, *checkpoint, '--data-root', shapes, *arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error and len(error.strip().splitlines()) == 1


def test_epochs_exclude_iterations(capsys):
    assert call('train', DETECTION, '--epochs', 1, '--iters', 5) == 2
    assert 'not allowed with' in capsys.readouterr().err


def test_browse_accepts_an_image_size(shapes, tmp_path, capsys):
    out = tmp_path / 'sheet.png'
    assert call('browse', DETECTION, '--data-root', shapes, '--out', out, '--num', 1, '--img-scale', 48) == 0
    assert 'shows 1 of 16 images' in capsys.readouterr().out and cv2.imread(str(out)) is not None


def test_only_the_first_process_prints_changes(tmp_path, monkeypatch, capsys):
    for rank, lines in ((0, 1), (1, 0)):
        monkeypatch.setenv('RANK', str(rank))
        where = ['--work-dir', tmp_path, '--data-root', tmp_path, '--launcher', 'pytorch']
        assert call('train', DETECTION, *where, '--batch-size', 2) == 2
        printed = capsys.readouterr()
        assert 'and the train data of this config' in printed.err
        assert printed.out.count('train_dataloader.batch_size: 8 -> 2') == lines
