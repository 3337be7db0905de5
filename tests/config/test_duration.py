"""--epochs and --iters shrink a schedule as a whole: every part keeps its share, and the learning rate its shape."""

import copy
import itertools

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS

from mlp_dense.config.scaling import without_nothing
from mlp_dense.errors import UserError
from mlp_dense.training.loops import EpochLoop, IterLoop, validations_left
from mlp_dense.training.setup import shrink
from support.configs import CLASSIFIERS, CONFIGS, DETECTION, config

ALL = ('train', 'val', 'test')
EPOCH = 400  # iterations
COCO_1X, COCO_3X = (config(f'detection/as_mlp_tiny_mask_rcnn_{times}x_coco') for times in (1, 3))
ADE20K = config('segmentation/hire_mlp_upernet_ade20k')


def shrunk(file: str, **asked) -> tuple[Config, list[str]]:
    cfg = Config.fromfile(file)
    return cfg, shrink(cfg, ALL, **asked)


def test_epochs_of_epochs():
    cfg, lines = shrunk(COCO_1X, epochs=6)
    assert lines == [
        'train_cfg.max_epochs: 12 -> 6',
        'param_scheduler.0.end: 500 -> 250',
        'param_scheduler.1.end: 12 -> 6',
        'param_scheduler.1.milestones: [8, 11] -> [4, 5]',
    ]
    cfg, _ = shrunk(COCO_3X, epochs=12)
    assert cfg.param_scheduler[1].milestones == [9, 11] and cfg.param_scheduler[0].end == 167
    cfg, _ = shrunk(DETECTION, epochs=30)  # longer: everything grows
    assert (cfg.train_cfg.val_interval, cfg.param_scheduler[0].end, cfg.param_scheduler[1].end) == (16, 80, 30)


def test_iterations_of_iterations():
    cfg, lines = shrunk(ADE20K, iters=8000)  # a tenth
    assert lines == [
        'train_cfg.max_iters: 80000 -> 8000',
        'train_cfg.val_interval: 8000 -> 800',
        'default_hooks.checkpoint.interval: 8000 -> 800',
        'param_scheduler.0.end: 800 -> 80',
        'param_scheduler.1.begin: 800 -> 80',
        'param_scheduler.1.end: 80000 -> 8000',
    ]
    cfg, lines = shrunk(ADE20K, iters=50)
    assert 'param_scheduler.0: LinearLR -> left out, it would be shorter than 2 iterations' in lines
    assert [each.type for each in cfg.param_scheduler] == ['PolyLR'] and cfg.default_hooks.logger.interval == 5


def test_iterations_of_epochs():
    cfg, _ = shrunk(COCO_1X, iters=120)
    assert cfg.train_cfg == dict(type='mlp_dense.IterLoop', max_iters=120, val_interval=12)
    warmup, steps = cfg.param_scheduler
    assert (warmup.end, steps.end, steps.by_epoch, steps.milestones) == (12, 120, False, [80, 110])
    hooks = cfg.default_hooks
    assert not hooks.checkpoint.by_epoch and hooks.checkpoint.interval == 12 and not hooks.logger.log_metric_by_epoch
    assert not cfg.log_processor.by_epoch


def test_epochs_of_iterations():
    cfg, _ = shrunk(ADE20K, epochs=4)
    assert cfg.train_cfg == dict(type='mlp_dense.EpochLoop', max_epochs=4, val_interval=1)
    assert cfg.train_dataloader.sampler == dict(type='DefaultSampler', shuffle=True) and cfg.train_dataloader.drop_last
    assert [(each.begin, each.end) for each in cfg.param_scheduler] == [(0, 0.04), (0.04, 4)]
    assert cfg.log_processor.by_epoch and cfg.default_hooks.checkpoint.by_epoch


def test_hooks_that_wait_for_an_epoch():
    cfg = Config.fromfile(COCO_1X)
    cfg.custom_hooks.append(dict(type='mmdet.PipelineSwitchHook', switch_epoch=10, switch_pipeline=[]))
    assert 'custom_hooks.0.switch_epoch: 10 -> 5' in shrink(cfg, ALL, epochs=6)


@pytest.mark.parametrize(
    ('asked', 'sentence'),
    [(dict(epochs=0), '--epochs 0: give 1 or more.'), (dict(iters=-5), '--iters -5: give 1 or more.')],
)
def test_impossible_lengths(asked, sentence):
    with pytest.raises(UserError, match=sentence):
        shrunk(COCO_1X, **asked)


def rates(cfg: Config, epoch_length: int) -> list[float]:
    """The learning rate of every iteration, 1 at most."""
    by_epoch = 'max_epochs' in cfg.train_cfg
    optimizer = OptimWrapper(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0))
    schedulers = cfg.get('param_scheduler') or []
    schedulers = copy.deepcopy(schedulers if isinstance(schedulers, list) else [schedulers])
    built = []
    for each in without_nothing(schedulers, lambda: epoch_length):
        convert = each.pop('convert_to_iter_based', False)
        cls = PARAM_SCHEDULERS.get(each.pop('type'))
        build = cls.build_iter_from_epoch if convert else cls
        built.append(build(optimizer=optimizer, **each, **(dict(epoch_length=epoch_length) if convert else {})))
    total = cfg.train_cfg.max_epochs * epoch_length if by_epoch else cfg.train_cfg.max_iters
    found = []
    for i in range(total):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for each in built:
            if not each.by_epoch or (i + 1) % epoch_length == 0:
                each.step()
    return found


def marked_like_configs() -> list:
    """All configs, of which those whose schedule another one has are slow to try."""
    seen, params = set(), []
    for path in (*CONFIGS, *CLASSIFIERS):
        kind = (path.parent.name, path.stem.split('_mlp')[-1] if path in CLASSIFIERS else path.stem.split('_')[-1])
        params.append(pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if kind in seen else []))
        seen.add(kind)
    return params


@pytest.mark.parametrize('path', marked_like_configs())
def test_every_published_config(path):
    original = Config.fromfile(path)
    classifier = path in CLASSIFIERS
    if classifier:
        pytest.importorskip('timm', reason='timm is not installed: make test STACK=timm')
    whole = original.train_cfg.get('max_epochs')
    for asked in (dict(epochs=1), dict(epochs=5), dict(iters=3), dict(iters=100)):
        cfg = copy.deepcopy(original)
        sizes = dict(img_scale=[64] if classifier else (320, 192), batch_size=2, workers=0)
        lines = shrink(cfg, ALL, **sizes, **asked)
        assert all(len(line.split(': ')) > 1 for line in lines)
        assert any('pipeline' in line for line in lines) or 'shapes' in path.stem or 'tiny_imagenet' in path.stem
        assert cfg.train_dataloader.batch_size == 2 and cfg.val_dataloader.num_workers == 0
        key, new = next((f'max_{name}', value) for name, value in asked.items())
        assert cfg.train_cfg[key] == new and 1 <= cfg.train_cfg.val_interval <= max(new, whole or 1)
        found = rates(cfg, EPOCH)
        assert 0.5 <= max(found) <= 1.0 + 1e-9, 'the warm-up ends'
        assert found.index(max(found)) <= len(found) / 2, 'and soon'
        if len(found) == 100:  # the decay is there
            assert found[-1] < 0.2 * max(found)
    if '_upernet_ade' in path.stem or 'camvid' in path.stem:
        assert shrink(copy.deepcopy(original), ALL, crop_size=(64, 64))


def test_an_epoch_of_few_iterations_keeps_its_learning_rate():
    """A warm-up that is converted from a fraction of an epoch could end before its second iteration, and stay there."""
    cfg, _ = shrunk(ADE20K, epochs=1)
    assert max(rates(cfg, 3)) > 0.9
    short = [dict(type='LinearLR', start_factor=0.1, begin=0, end=1)]
    assert without_nothing(short, lambda: 1 / 0) == short, 'what the config itself has in epochs stays'


@pytest.mark.parametrize(('kind', 'length'), [(EpochLoop, '_max_epochs'), (IterLoop, '_max_iters')])
def test_validations_that_are_left(kind, length):
    for interval, begin, last in itertools.product((1, 3, 7, 20), (1, 5, 30), (1, 6, 20)):
        points = [p for p in range(1, last + 1) if p >= begin and (p % interval == 0 or p == last)]
        loop = kind.__new__(kind)
        loop.__dict__.update({length: last, 'val_interval': interval, 'val_begin': begin})
        for done in range(last + 1):
            assert validations_left(loop, done) == sum(p > done for p in points)
