"""Classifiers are trained, tested and used with the same tools and the same guarantees as detectors."""

import json
import random
import signal
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

pytest.importorskip('timm', reason='timm is not installed: make test STACK=timm')
from mlp_dense.datasets.shapes import CLASSES
from mlp_dense.training.checkpoint_hook import ResumeHook
from support.configs import config
from support.tools import before_training, call
from support.trainings import assert_equal_states, records_of, start, two_processes, wait

pytestmark = pytest.mark.slow
EMA = dict(type='EMAHook', momentum=0.1)


@pytest.mark.parametrize('at', [3, 5])
def test_resumed_training_equals_an_uninterrupted_one(on_cpu, quick, tmp_path, at):
    """The config has random augmentation, erasing, Mixup, CutMix, stochastic depth and averaged weights."""
    file = quick(custom_hooks=[EMA])
    assert call('train', file, '--work-dir', tmp_path / 'uninterrupted', '--seed', 3) == 0
    cfg = Config.fromfile(file)
    cfg.custom_hooks = [EMA, dict(type='SignalHook', at=at, signals=['SIGTERM'])]
    cfg.dump(tmp_path / 'stopping.py')
    interrupted = tmp_path / 'interrupted'
    assert call('train', tmp_path / 'stopping.py', '--work-dir', interrupted, '--seed', 3) == 128 + signal.SIGTERM
    assert call('train', file, '--work-dir', interrupted, '--resume') == 0
    assert records_of(interrupted) == records_of(tmp_path / 'uninterrupted')
    final = Path((interrupted / 'last_checkpoint').read_text())
    assert_equal_states(final, tmp_path / 'uninterrupted' / final.name)
    training = [record for (_, training), record in records_of(interrupted).items() if training]
    assert all(record['base_lr'] == record['lr'] for record in training) and len({r['lr'] for r in training}) > 1


def test_copies_of_an_image_are_augmented_differently(quick):
    """The augmentation depends on the seed and the index."""
    from mlp_dense.config.config_file import enter_scope
    from mlp_dense.training.data_order import SeededDataset

    cfg = Config.fromfile(quick())
    enter_scope(cfg)
    data = SeededDataset(cfg.train_dataloader.dataset, seed=1)
    first, second, repeated = (data[index, 0] for index in (7, 7 + len(data), 7))
    assert first['data_samples'].img_path == second['data_samples'].img_path
    assert not torch.equal(first['inputs'], second['inputs']) and torch.equal(first['inputs'], repeated['inputs'])


def test_resuming_with_other_batches_keeps_the_schedule(quick, tmp_path):
    """A learning rate that changes in every iteration has the same values at the same epochs."""
    rates = {}
    changes = {'param_scheduler.convert_to_iter_based': True, 'train_cfg.max_epochs': 4, 'param_scheduler.length': 4}
    file = quick(**changes, **{'train_dataloader.batch_size': 4})
    assert call('train', file, '--work-dir', tmp_path / 'run', '--seed', 0) == 0
    file = quick(**changes, **{'train_dataloader.batch_size': 2})
    assert call('train', file, '--work-dir', tmp_path / 'complete', '--seed', 0) == 0
    assert call('train', file, '--work-dir', tmp_path / 'after', '--resume', tmp_path / 'run' / 'epoch_2.pth') == 0
    for folder in ('complete', 'after'):
        records = records_of(tmp_path / folder)
        rates[folder] = {at: record['lr'] for (at, training), record in records.items() if training}
    assert len(rates['after']) == 20 and min(rates['after']) == 21
    assert rates['after'] == pytest.approx({at: rates['complete'][at] for at in rates['after']})


def test_processes_draw_different_random_numbers(monkeypatch):
    drawn = []
    for rank in (0, 1, 2, 1):
        monkeypatch.setattr('mlp_dense.training.checkpoint_hook.get_rank', lambda rank=rank: rank)
        torch.manual_seed(5), np.random.seed(5), random.seed(5)
        ResumeHook().before_train(SimpleNamespace(seed=5))
        drawn.append((torch.rand(1).item(), np.random.rand(), random.random()))
    assert drawn[1] == drawn[3] and all(len(set(numbers)) == 3 for numbers in zip(*drawn[:3], strict=True))
    torch.manual_seed(5)
    assert drawn[0][0] == torch.rand(1).item(), 'the first process uses the seed itself'


def test_averaged_config_tests_a_file_of_another_project(trained, tmp_path):
    """The weights in the file are not under ``state_dict``."""
    file, checkpoint, _ = trained
    cfg = Config.fromfile(file)
    cfg.custom_hooks = [EMA]
    cfg.dump(tmp_path / 'averaged.py')
    torch.save(dict(model=torch.load(checkpoint, weights_only=False)['state_dict']), tmp_path / 'other.pth')
    metrics = []
    for config_file, weights in ((file, checkpoint), (tmp_path / 'averaged.py', tmp_path / 'other.pth')):
        assert call('test', config_file, weights, '--work-dir', tmp_path / 'test') == 0
        metrics.append(json.loads((tmp_path / 'test' / 'metrics.json').read_text()))
    assert metrics[0] == metrics[1]


def test_prediction_and_test_ignore_the_orientation(trained, tmp_path):
    file, checkpoint, _ = trained
    for name in CLASSES:
        (tmp_path / 'data' / 'val' / name).mkdir(parents=True)
        rows = np.random.default_rng(len(name)).integers(0, 256, (60, 40, 3), dtype=np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(rows).save(tmp_path / 'data' / 'val' / name / f'{name}.png', exif=exif)
    out, data = tmp_path / 'out.json', ['--data-root', tmp_path / 'data']
    assert call('test', file, checkpoint, '--work-dir', tmp_path / 'test', '--out', out, *data) == 0
    assert call('predict', tmp_path / 'data' / 'val', file, checkpoint, '--out-dir', tmp_path / 'predicted') == 0
    content = json.loads((tmp_path / 'predicted' / 'images.json').read_text())
    files = {image['id']: image['file_name'] for image in content['images']}
    names = {category['id']: category['name'] for category in content['categories']}
    scores = {}
    for prediction in json.loads((tmp_path / 'predicted' / 'predictions.json').read_text()):
        scores.setdefault(files[prediction['image_id']], {})[names[prediction['category_id']]] = prediction['score']
    for image in json.loads(out.read_text())['images']:
        (file_name,) = (name for name in scores if image['file'].endswith(name))
        assert scores[file_name] == pytest.approx(image['predicted'], abs=1e-4)


def test_two_processes_train(on_cpu, quick, tmp_path):
    file = quick()
    arguments = [file, '--work-dir', tmp_path / 'run', '--seed', 0, '--launcher', 'pytorch']
    pids = [start(*arguments, log=tmp_path / f'log{variables["RANK"]}', **variables) for variables in two_processes()]
    assert [wait(pid) for pid in pids] == [0, 0], (tmp_path / 'log0').read_text()
    assert 0 <= list(records_of(tmp_path / 'run').values())[-1]['accuracy/top1'] <= 100


@pytest.fixture
def trained(quick, tmp_path, capsys):
    """Return (config, checkpoint, console) of a short training run."""
    file = quick()
    assert call('train', file, '--work-dir', tmp_path / 'run', '--seed', 0) == 0
    return file, Path((tmp_path / 'run' / 'last_checkpoint').read_text()), capsys.readouterr().out


def test_training_test_and_prediction_agree(trained, classes, tmp_path, capsys):
    file, checkpoint, console = trained
    before = '\n'.join(before_training(console))
    assert 'ImageClassifier, mlp_dense.HireMLP of custom size' in before and '20 images of ClassFolders' in before
    assert 'random weights' not in before and 'mmcv' not in before and 'WARNING' not in before

    work_dir, out, drawn = tmp_path / 'test', tmp_path / 'out.json', tmp_path / 'drawn'
    assert call('test', file, checkpoint, '--work-dir', work_dir, '--out', out, '--show-dir', drawn) == 0
    top1 = json.loads((work_dir / 'metrics.json').read_text())['accuracy/top1']
    content = json.loads(out.read_text())
    assert content['classes'].keys() == set(CLASSES) and len(content['images']) == 10
    correct = [image['class'] == next(iter(image['predicted'])) for image in content['images']]
    assert 100 * np.mean(correct) == pytest.approx(top1)
    assert np.mean([row['top1'] for row in content['classes'].values()]) == pytest.approx(top1)  # two images each
    assert all(sum(image['predicted'].values()) == pytest.approx(1, abs=1e-4) for image in content['images'])
    files = sorted(drawn.rglob('*.png'))
    assert len(files) == 10 and cv2.imread(str(files[0])).shape == (341, 640, 3)

    assert call('predict', classes / 'val', file, checkpoint, '--out-dir', tmp_path / 'predicted') == 0
    predictions = json.loads((tmp_path / 'predicted' / 'predictions.json').read_text())
    images = json.loads((tmp_path / 'predicted' / 'images.json').read_text())
    names = {category['id']: category['name'] for category in images['categories']}
    assert len(predictions) == 50 and set(names.values()) == set(CLASSES)
    best = {}
    for prediction in predictions:  # by descending probability
        best.setdefault(prediction['image_id'], (names[prediction['category_id']], prediction['score']))
    for image in images['images']:
        tested = next(tested for tested in content['images'] if tested['file'].endswith(image['file_name']))
        name, score = next(iter(tested['predicted'].items()))
        assert best[image['id']] == (name, pytest.approx(score, abs=1e-4))
    assert len(list((tmp_path / 'predicted' / 'vis').rglob('*.png'))) == 10
    capsys.readouterr()
    assert call('test', file, checkpoint, '--work-dir', work_dir, '--out', tmp_path / 'out.pkl') == 2
    assert 'for this config use a file that ends in .json.' in capsys.readouterr().err


def test_report_agrees_with_the_metrics(trained, tmp_path, capsys):
    file, checkpoint, _ = trained
    folder = tmp_path / 'report'
    for _ in range(2):  # the second replaces the first
        assert call('test', file, checkpoint, '--work-dir', tmp_path / 'test', '--report', folder) == 0
    metrics = json.loads((tmp_path / 'test' / 'metrics.json').read_text())
    content = json.loads((folder / 'report.json').read_text())
    assert 100 * content['top1'] == pytest.approx(metrics['accuracy/top1'])
    assert np.sum(content['confusion']) == 10 and len(list((folder / 'pictures').iterdir())) == 10
    assert np.trace(content['confusion']) == pytest.approx(metrics['accuracy/top1'] / 10)
    table = {row['class']: row for row in content['tables']['Classes']}
    assert [row['images'] for row in table.values()] == [2] * 5 and table.keys() == set(CLASSES)
    assert call('report', folder, folder, '--out', tmp_path / 'both', '--resamples', 10) == 0
    assert json.loads((tmp_path / 'both' / 'report.json').read_text())['tables']['Runs'][1]['difference'] == 0


def test_img_scale_sets_the_resolution(trained, tmp_path):
    file, checkpoint, _ = trained
    metrics = []
    for size in (32, 48):
        out = tmp_path / f'{size}.json'
        work_dir = tmp_path / 'test'
        assert call('test', file, checkpoint, '--work-dir', work_dir, '--img-scale', size, '--out', out) == 0
        metrics.append(json.loads(out.read_text())['images'])
    assert metrics[0] != metrics[1]


def test_browse_and_dry_run_support_classifiers(quick, tmp_path, capsys):
    file = quick()
    assert call('browse', file, '--out', tmp_path / 'sheet.png', '--num', 4) == 0
    assert cv2.imread(str(tmp_path / 'sheet.png')) is not None
    assert call('train', file, '--work-dir', tmp_path / 'run', '--dry-run') == 0
    assert 'training and validation work' in capsys.readouterr().out


def test_training_and_test_on_tiny_imagenet(shared, tmp_path):
    file = config('classification/cycle_mlp_b1_tiny_imagenet_50')
    small = [f'{name}_dataloader.dataset.indices=8' for name in ('train', 'val', 'test')]
    options = ['train_cfg.max_epochs=1', 'train_dataloader.batch_size=4', 'param_scheduler.warmup=0', *small]
    arguments = ['--data-root', shared / 'data' / 'tiny_imagenet_50', '--work-dir', tmp_path, '--cfg-options', *options]
    assert call('train', file, *arguments) == 0
    checkpoint = (tmp_path / 'last_checkpoint').read_text()
    assert call('test', file, checkpoint, *arguments[:4], '--show-dir', tmp_path / 'drawn', *arguments[4:]) == 0
    assert json.loads((tmp_path / 'metrics.json').read_text()).keys() == {'accuracy/top1', 'accuracy/top5'}
    assert len(list((tmp_path / 'drawn').rglob('*.png'))) == 8
    classes = torch.load(checkpoint, weights_only=False)['meta']['dataset_meta']['classes']
    assert len(classes) == 50 and classes[0] == 'goldfish'
