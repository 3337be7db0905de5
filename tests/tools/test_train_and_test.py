"""Training and testing from end to end; the training of each task is a separate process, as a user starts it."""

import json
import pickle
import re
from functools import cache
from pathlib import Path

import cv2
import pytest
import torch

from support.configs import DETECTION, SEGMENTATION, thin_config
from support.tools import before_training, call, log_of, run

QUICK = {  # for --cfg-options
    DETECTION: ['train_cfg.max_epochs=2', 'train_cfg.val_interval=2', 'default_hooks.visualization.interval=1'],
    SEGMENTATION: [
        *('train_cfg.max_iters=4', 'train_cfg.val_interval=4', 'default_hooks.checkpoint.interval=2'),
        *('default_hooks.logger.interval=1', 'default_hooks.visualization.interval=1'),
    ],
}
METRICS = {DETECTION: ('coco/bbox_mAP', 'coco/segm_mAP', 'coco/bbox_mAP_50'), SEGMENTATION: ('aAcc', 'mIoU', 'mAcc')}

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module', params=[DETECTION, SEGMENTATION], ids=['detection', 'segmentation'])
def trained(request, shapes, tmp_path_factory):
    """Train shortly on the generated data; return (config, work dir, checkpoint, options)."""
    work_dir = tmp_path_factory.mktemp('run')
    options = ['--data-root', shapes, '--cfg-options', *QUICK[request.param]]
    log = run('tools/train.py', request.param, '--work-dir', work_dir, '--seed', 0, *options)
    (work_dir / 'console.txt').write_text(log)
    return request.param, work_dir, Path((work_dir / 'last_checkpoint').read_text()), options


def test_console_is_short_and_the_log_is_complete(trained, tmp_path):
    _, work_dir, *_ = trained
    console = (work_dir / 'console.txt').read_text()
    before = before_training(console)
    assert len(before) <= 24
    expected = [
        'mlp_dense.HireMLP',
        '16 images of',
        'validated on 8',
        'starts from random weights',
        str(work_dir),
        '.log',
    ]
    assert [words for words in expected if words not in '\n'.join(before)] == []
    (file,) = re.findall(r' log +(\S+)', console)
    log = Path(file).read_text()  # not the newest log: another test resumes this run
    later = [line for line in before if 'No GPU: ' not in line]  # printed before the log file exists
    assert [line for line in later if line not in log] == [], 'the log file is complete'
    assert 'System environment:' in log and 'Config:' in log and len(log) > 2 * len(console)
    (best,) = work_dir.glob('best_*.pth')
    _, trained_in, best_line, next_line = console.rstrip().rsplit('\n', 3)
    assert 'Trained in 0:' in trained_in and f'Best checkpoint: {best} (' in best_line
    tool, *args = next_line.partition('Next: python tools/')[2].split()
    assert tool == 'test.py' and call('test', *args, '--work-dir', tmp_path) == 0


@pytest.fixture(scope='module')
def metrics(trained, shapes, tmp_path_factory):
    """Return a function that tests the trained model with more arguments, once, and returns its metrics."""
    config, _, checkpoint, _ = trained

    @cache
    def metrics(*args) -> dict[str, float]:
        work_dir = tmp_path_factory.mktemp('test')
        assert call('test', config, checkpoint, '--data-root', shapes, '--work-dir', work_dir, *args) == 0
        return json.loads((work_dir / 'metrics.json').read_text())

    return metrics


def test_test_writes_metrics_predictions_and_drawings(trained, shapes, tmp_path, capsys):
    config, work_dir, checkpoint, _ = trained
    assert list(work_dir.glob('best_*.pth')), 'the best checkpoint is kept'
    assert list(work_dir.glob('*/vis_data/vis_image/*.png')), 'validation draws images'
    out, drawn = tmp_path / 'out.pkl', tmp_path / 'drawn'
    where = ['--data-root', shapes, '--work-dir', tmp_path]
    assert call('test', config, checkpoint, *where, '--show-dir', drawn, '--out', out) == 0
    printed = capsys.readouterr().out
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    for name in METRICS[config]:
        assert name in metrics and f'{name} ' in printed
    with out.open('rb') as file:
        assert len(pickle.load(file)) == 8
    images = sorted(drawn.glob('*.png'))
    assert [path.name for path in images] == [f'{i:06}.png' for i in range(8)]
    assert cv2.imread(str(images[0])).shape == (405, 768, 3), 'ground truth and prediction, enlarged, side by side'


def test_tta_returns_all_metrics(trained, metrics):
    assert set(METRICS[trained[0]]) <= set(metrics('--tta'))


@pytest.mark.parametrize('options', [[], ['--tta']], ids=str)
def test_fused_model_has_equal_metrics(metrics, options):
    assert metrics(*options) == pytest.approx(metrics('--fuse', *options), abs=1e-3)


def test_best_checkpoint_has_the_logged_metric(trained, metrics):
    config, work_dir, *_ = trained
    log = ''.join(file.read_text() for file in work_dir.glob('*/*.log'))  # another test resumes this training
    name = METRICS[config][0] if config == DETECTION else 'mIoU'
    value = metrics()[name]
    assert f'{name}: {value:.4f}' in log, 'the test equals the validation during training'


def test_existing_training_is_resumed_but_not_overwritten(trained, capsys):
    config, work_dir, checkpoint, options = trained
    before = checkpoint.stat().st_mtime_ns
    assert call('train', config, '--work-dir', work_dir, *options) == 2
    assert capsys.readouterr().err.strip().endswith('resume it with --resume, or choose another --work-dir.')
    assert checkpoint.stat().st_mtime_ns == before
    assert call('train', config, '--work-dir', work_dir, '--resume', *options) == 0
    assert 'resumed epoch: ' in log_of(work_dir)


def weights_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=False)['state_dict']


def assert_same_weights(one: Path, other: Path, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    others = weights_of(other)
    for name, tensor in weights_of(one).items():
        assert torch.allclose(tensor, others[name], rtol=rtol, atol=atol), name


def test_two_processes_train_as_one_with_their_images(on_cpu, shapes, tmp_path):
    """Gradients are averaged, so two processes with two images each make the steps of one process with all four."""
    file = thin_config('segmentation/hire_mlp_upernet_shapes', tmp_path)
    with open(file, 'a') as text:  # no random numbers, no batch statistics, steps proportional to the gradient
        text.write("""
optim_wrapper = dict(type='AmpOptimWrapper', optimizer=dict(type='SGD', lr=0.5))
param_scheduler = []
model['backbone']['norm_eval'] = True
for head in ('decode_head', 'auxiliary_head'):
    model[head].update(dropout_ratio=0.0, norm_cfg=dict(type='GN', num_groups=2))
train_dataloader['sampler']['shuffle'] = False
train_dataloader['dataset']['pipeline'][2]['prob'] = 0.0
""")
    fixed = [*QUICK[SEGMENTATION], 'train_dataloader.dataset.indices=4', 'default_hooks.checkpoint.interval=4']
    torchrun = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', 'tools/train.py']

    def arguments(name: str, batch_size: int) -> list:
        where = [file, '--data-root', shapes, '--work-dir', tmp_path / name, '--seed', 0]
        return [*where, '--cfg-options', *fixed, f'train_dataloader.batch_size={batch_size}']

    run(*torchrun, *arguments('two', 2), '--launcher', 'pytorch')
    assert 'Iter(val)' in log_of(tmp_path / 'two')
    assert call('train', *arguments('one', 4)) == call('train', *arguments('half', 2)) == 0
    one, two, half = (tmp_path / name / 'iter_4.pth' for name in ('one', 'two', 'half'))
    assert_same_weights(one, two)
    with pytest.raises(AssertionError):
        assert_same_weights(one, half)
