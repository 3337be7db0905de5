"""Classifiers are trained, tested and used with the same tools, and with the same guarantees."""

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
from mlp_dense.training.resume_hook import ResumeHook
from support.configs import config
from support.tools import before_training, call
from support.trainings import assert_equal_states, records_of, start, two_processes, wait

pytestmark = pytest.mark.slow
EMA = dict(type='EMAHook', momentum=0.1)


@pytest.mark.parametrize('at', [3, 5])
def test_resumed_is_unbroken(on_cpu, quick, tmp_path, at):
    """With random augmentation, erasing, Mixup, CutMix, stochastic depth and averaged weights."""
    file = quick(custom_hooks=[EMA])
    assert call('train', file, '--work-dir', tmp_path / 'unbroken', '--seed', 3) == 0
    cfg = Config.fromfile(file)
    cfg.custom_hooks = [EMA, dict(type='SignalHook', at=at, signals=['SIGTERM'])]
    cfg.dump(tmp_path / 'stopping.py')
    broken = tmp_path / 'broken'
    assert call('train', tmp_path / 'stopping.py', '--work-dir', broken, '--seed', 3) == 128 + signal.SIGTERM
    assert call('train', file, '--work-dir', broken, '--resume') == 0
    assert records_of(broken) == records_of(tmp_path / 'unbroken')
    final = Path((broken / 'last_checkpoint').read_text())
    assert_equal_states(final, tmp_path / 'unbroken' / final.name)
    other = tmp_path / 'other'
    assert call('train', file, '--work-dir', other, '--seed', 4) == 0
    assert records_of(other) != records_of(broken)
    training = [record for (_, training), record in sorted(records_of(other).items()) if training]
    assert all(record['base_lr'] == record['lr'] for record in training) and len({r['lr'] for r in training}) > 1


def test_copies_of_an_image_are_augmented_otherwise(quick):
    """In one epoch; what a seed gives is the same in every run."""
    from mlp_dense.config.reading import enter_scope
    from mlp_dense.training.data_order import SeededDataset

    cfg = Config.fromfile(quick())
    enter_scope(cfg)
    data = SeededDataset(cfg.train_dataloader.dataset, seed=1)
    first, second, again = (data[index, 0] for index in (7, 7 + len(data), 7))
    assert first['data_samples'].img_path == second['data_samples'].img_path
    assert not torch.equal(first['inputs'], second['inputs']) and torch.equal(first['inputs'], again['inputs'])


def test_resumed_with_other_batches(quick, tmp_path):
    """A learning rate that falls with every iteration falls at the same epochs as before."""
    rates = {}
    for name, size in (('before', 4), ('after', 2)):
        changes = {
            'param_scheduler.convert_to_iter_based': True,
            'train_cfg.max_epochs': 4,
            'param_scheduler.length': 4,
        }
        file = quick(**changes, **{'train_dataloader.batch_size': size})
        if name == 'before':
            assert call('train', file, '--work-dir', tmp_path / 'run', '--seed', 0) == 0
        resumed = ['--resume', tmp_path / 'run' / 'epoch_2.pth'] if name == 'after' else []
        if name == 'after':
            assert call('train', file, '--work-dir', tmp_path / 'whole', '--seed', 0) == 0
            assert call('train', file, '--work-dir', tmp_path / 'after', *resumed) == 0
    for folder in ('whole', 'after'):
        records = records_of(tmp_path / folder)
        rates[folder] = {at: record['lr'] for (at, training), record in records.items() if training}
    assert len(rates['after']) == 20 and min(rates['after']) == 21
    assert rates['after'] == pytest.approx({at: rates['whole'][at] for at in rates['after']})


def test_processes_draw_other_numbers(monkeypatch):
    drawn = []
    for rank in (0, 1, 2, 1):
        monkeypatch.setattr('mlp_dense.training.resume_hook.get_rank', lambda rank=rank: rank)
        torch.manual_seed(5), np.random.seed(5), random.seed(5)
        ResumeHook().before_train(SimpleNamespace(seed=5))
        drawn.append((torch.rand(1).item(), np.random.rand(), random.random()))
    assert drawn[1] == drawn[3] and all(len({each[i] for each in drawn[:3]}) == 3 for i in range(3))
    torch.manual_seed(5)
    assert drawn[0][0] == torch.rand(1).item(), 'that of one process is its own'


def test_averaged_weights_and_a_file_of_others(trained, tmp_path):
    """Whose weights are not under ``state_dict``."""
    file, checkpoint, _ = trained
    cfg = Config.fromfile(file)
    cfg.custom_hooks = [EMA]
    cfg.dump(tmp_path / 'averaged.py')
    torch.save(dict(model=torch.load(checkpoint, weights_only=False)['state_dict']), tmp_path / 'other.pth')
    found = []
    for config_file, weights in ((file, checkpoint), (tmp_path / 'averaged.py', tmp_path / 'other.pth')):
        assert call('test', config_file, weights, '--work-dir', tmp_path / 'test') == 0
        found.append(json.loads((tmp_path / 'test' / 'metrics.json').read_text()))
    assert found[0] == found[1]


def test_orientation_is_that_of_the_test(trained, tmp_path):
    """A picture of a phone is predicted as it is tested."""
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
    named = json.loads((tmp_path / 'predicted' / 'images.json').read_text())
    files = {each['id']: each['file_name'] for each in named['images']}
    names = {each['id']: each['name'] for each in named['categories']}
    found = {}
    for each in json.loads((tmp_path / 'predicted' / 'predictions.json').read_text()):
        found.setdefault(files[each['image_id']], {})[names[each['category_id']]] = each['score']
    for image in json.loads(out.read_text())['images']:
        (file_name,) = (name for name in found if image['file'].endswith(name))
        assert found[file_name] == pytest.approx(image['predicted'], abs=1e-4)


def test_two_processes(on_cpu, quick, tmp_path):
    file = quick()
    arguments = [file, '--work-dir', tmp_path / 'run', '--seed', 0, '--launcher', 'pytorch']
    pids = [start(*arguments, log=tmp_path / f'log{e["RANK"]}', **e) for e in two_processes()]
    assert [wait(pid) for pid in pids] == [0, 0], (tmp_path / 'log0').read_text()
    assert 0 <= list(records_of(tmp_path / 'run').values())[-1]['accuracy/top1'] <= 100


@pytest.fixture
def trained(quick, tmp_path, capsys):
    """(config, checkpoint, console) of a short training."""
    file = quick()
    assert call('train', file, '--work-dir', tmp_path / 'run', '--seed', 0) == 0
    return file, Path((tmp_path / 'run' / 'last_checkpoint').read_text()), capsys.readouterr().out


def test_from_training_to_prediction(trained, classes, tmp_path, capsys):
    file, checkpoint, console = trained
    before = '\n'.join(before_training(console))
    assert 'ImageClassifier, mlp_dense.HireMLP of custom size' in before and '20 images of ClassFolders' in before
    assert 'random weights' not in before and 'mmcv' not in before and 'WARNING' not in before

    work_dir, out, drawn = tmp_path / 'test', tmp_path / 'out.json', tmp_path / 'drawn'
    assert call('test', file, checkpoint, '--work-dir', work_dir, '--out', out, '--show-dir', drawn) == 0
    top1 = json.loads((work_dir / 'metrics.json').read_text())['accuracy/top1']
    content = json.loads(out.read_text())
    assert content['classes'].keys() == set(CLASSES) and len(content['images']) == 10
    right = [image['class'] == next(iter(image['predicted'])) for image in content['images']]
    assert 100 * np.mean(right) == pytest.approx(top1)
    assert np.mean([each['top1'] for each in content['classes'].values()]) == pytest.approx(top1)  # two images each
    assert all(sum(image['predicted'].values()) == pytest.approx(1, abs=1e-4) for image in content['images'])
    pictures = sorted(drawn.rglob('*.png'))
    assert len(pictures) == 10 and cv2.imread(str(pictures[0])).shape == (341, 640, 3)

    assert call('predict', classes / 'val', file, checkpoint, '--out-dir', tmp_path / 'predicted') == 0
    found = json.loads((tmp_path / 'predicted' / 'predictions.json').read_text())
    named = json.loads((tmp_path / 'predicted' / 'images.json').read_text())
    names = {each['id']: each['name'] for each in named['categories']}
    assert len(found) == 50 and set(names.values()) == set(CLASSES)
    best = {}
    for each in found:  # the likeliest comes first
        best.setdefault(each['image_id'], (names[each['category_id']], each['score']))
    for image in named['images']:
        tested = next(each for each in content['images'] if each['file'].endswith(image['file_name']))
        name, score = next(iter(tested['predicted'].items()))
        assert best[image['id']] == (name, pytest.approx(score, abs=1e-4))
    assert len(list((tmp_path / 'predicted' / 'vis').rglob('*.png'))) == 10
    capsys.readouterr()
    assert call('test', file, checkpoint, '--work-dir', work_dir, '--out', tmp_path / 'out.pkl') == 2
    assert 'for this config use a file that ends in .json.' in capsys.readouterr().err


def test_report(trained, tmp_path, capsys):
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


def test_other_resolution(trained, tmp_path, capsys):
    file, checkpoint, _ = trained
    metrics = []
    for size in (32, 48):
        out = tmp_path / f'{size}.json'
        work_dir = tmp_path / 'test'
        assert call('test', file, checkpoint, '--work-dir', work_dir, '--img-scale', size, '--out', out) == 0
        metrics.append(json.loads(out.read_text())['images'])
    assert metrics[0] != metrics[1]
    capsys.readouterr()
    for sizes, sentence in (([0], 'of 1 pixel or more.'), ([64, 48], 'are square; give one number.')):
        assert call('test', file, checkpoint, '--work-dir', tmp_path / 'test', '--img-size', *sizes) == 2
        assert capsys.readouterr().err.strip().endswith(sentence)


def test_browse_and_dry_run(quick, tmp_path, capsys):
    file = quick()
    assert call('browse', file, '--out', tmp_path / 'sheet.png', '--num', 4) == 0
    assert cv2.imread(str(tmp_path / 'sheet.png')) is not None
    assert call('train', file, '--work-dir', tmp_path / 'run', '--dry-run') == 0
    assert 'training and validation work' in capsys.readouterr().out


def test_unreadable_image_is_skipped_and_named(quick, classes, tmp_path, capsys):
    import shutil

    root = tmp_path / 'data'
    shutil.copytree(classes, root)
    bad = next((root / 'train' / 'disc').iterdir())
    bad.write_bytes(b'no image')
    file = quick(**{'max_unreadable': 0.1, 'param_scheduler.length': 6})
    options = ['--cfg-options', 'train_cfg.max_epochs=6', 'train_cfg.val_interval=6']
    assert call('train', file, '--work-dir', tmp_path / 'run', '--data-root', root, '--seed', 0, *options) == 0
    said = capsys.readouterr()
    assert f'{bad} is missing or no readable image' in said.out + said.err


def test_genuine_pictures(shared, tmp_path):
    """An iteration and a test on 50 classes of Tiny-ImageNet."""
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
