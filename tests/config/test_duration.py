"""--epochs and --iters scale a schedule as a whole, and a quick trial validates once."""

import copy
import itertools

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS

from mlp_dense.errors import UserError
from mlp_dense.training.loops import EpochLoop, IterLoop, validations_left
from mlp_dense.training.setup import shrink
from support.configs import CLASSIFIERS, CONFIGS, DETECTION, config

ALL = ('train', 'val', 'test')
EPOCH = 400  # iterations
COCO_1X, COCO_3X = (config(f'detection/as_mlp_tiny_mask_rcnn_{times}x_coco') for times in (1, 3))
ADE20K = config('segmentation/hire_mlp_upernet_ade20k')


def shrunk(file: str, **options) -> tuple[Config, list[str]]:
    cfg = Config.fromfile(file)
    return cfg, shrink(cfg, ALL, **options)


def test_epochs_scale_milestones_and_warmup():
    cfg, lines = shrunk(COCO_1X, epochs=6)
    assert lines == [
        'train_cfg.max_epochs: 12 -> 6',
        'default_hooks.logger.interval: 50 -> 25',
        'param_scheduler.0.end: 500 -> 250',
        'param_scheduler.1.end: 12 -> 6',
        'param_scheduler.1.milestones: [8, 11] -> [4, 5]',
    ]
    cfg, _ = shrunk(COCO_3X, epochs=12)
    assert cfg.param_scheduler[1].milestones == [9, 11] and cfg.param_scheduler[0].end == 167
    cfg, _ = shrunk(DETECTION, epochs=30)  # longer
    assert (cfg.param_scheduler[0].end, cfg.param_scheduler[1].end, cfg.default_hooks.logger.interval) == (80, 30, 20)


def test_iterations_scale_every_schedule():
    cfg, lines = shrunk(ADE20K, iters=8000)  # a tenth
    assert lines == [
        'train_cfg.max_iters: 80000 -> 8000',
        'param_scheduler.0.end: 800 -> 80',
        'param_scheduler.1.begin: 800 -> 80',
        'param_scheduler.1.end: 80000 -> 8000',
    ]
    cfg, lines = shrunk(ADE20K, iters=50)
    assert 'param_scheduler.0: LinearLR -> removed: too short to have an effect' in lines
    assert [schedule.type for schedule in cfg.param_scheduler] == ['PolyLR']


@pytest.mark.parametrize(
    ('file', 'options', 'interval', 'lines'),
    [(ADE20K, dict(iters=50), 50, 5), (COCO_1X, dict(epochs=1), 1, 10), (DETECTION, dict(epochs=1), 1, 10)],
)
def test_quick_trial_validates_once_and_prints(file, options, interval, lines):
    """The loops also validate after the last iteration."""
    cfg, _ = shrunk(file, **options)
    assert cfg.train_cfg.val_interval == cfg.default_hooks.checkpoint.interval == interval
    assert cfg.train_cfg.get('val_begin', 1) <= interval and cfg.default_hooks.logger.interval == lines


def test_intervals_of_the_config_stay():
    cfg, _ = shrunk(ADE20K, iters=20000)
    assert cfg.train_cfg.val_interval == cfg.default_hooks.checkpoint.interval == 8000
    cfg = Config.fromfile(COCO_1X)
    cfg.train_cfg.update(val_interval=2, val_begin=9)
    shrink(cfg, ALL, epochs=6)
    assert cfg.train_cfg == dict(type='mlp_dense.EpochLoop', max_epochs=6, val_interval=2, val_begin=6)


@pytest.mark.parametrize(
    ('file', 'options', 'sentence'),
    [
        (COCO_1X, dict(epochs=0), '--epochs 0: pass 1 or more.'),
        (COCO_1X, dict(iters=-5), '--iters -5: pass 1 or more.'),
        (COCO_1X, dict(iters=100), r'--iters: .*_coco\.py has no valid train_cfg\.max_iters; use --epochs\.'),
        (ADE20K, dict(epochs=1), r'--epochs: .*_ade20k\.py has no valid train_cfg\.max_epochs; use --iters\.'),
    ],
)
def test_impossible_duration_is_refused(file, options, sentence):
    with pytest.raises(UserError, match=sentence):
        shrunk(file, **options)


def rates(cfg: Config, epoch_length: int) -> list[float]:
    """Return the learning rate of every iteration, 1 at most."""
    by_epoch = 'max_epochs' in cfg.train_cfg
    optimizer = OptimWrapper(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0))
    settings = copy.deepcopy(cfg.get('param_scheduler') or [])
    schedules = []
    for schedule in settings if isinstance(settings, list) else [settings]:
        convert = schedule.pop('convert_to_iter_based', False)
        cls = PARAM_SCHEDULERS.get(schedule.pop('type'))
        build = cls.build_iter_from_epoch if convert else cls
        schedules.append(build(optimizer=optimizer, **schedule, **(dict(epoch_length=epoch_length) if convert else {})))
    total = cfg.train_cfg.max_epochs * epoch_length if by_epoch else cfg.train_cfg.max_iters
    values = []
    for i in range(total):
        values.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for schedule in schedules:
            if not schedule.by_epoch or (i + 1) % epoch_length == 0:
                schedule.step()
    return values


def one_config_per_schedule() -> list:
    configs = {}
    for path in (*CONFIGS, *CLASSIFIERS):
        configs.setdefault((path.parent.name, path.stem.split('_mlp' if path in CLASSIFIERS else '_')[-1]), path)
    return list(configs.values())


@pytest.mark.parametrize('path', one_config_per_schedule(), ids=lambda path: path.stem)
def test_every_schedule_keeps_the_shape_of_its_learning_rate(path):
    original = Config.fromfile(path)
    classifier = path in CLASSIFIERS
    if classifier:
        pytest.importorskip('timm', reason='timm is not installed: make test STACK=timm')
    option, durations = ('epochs', (1, 5)) if 'max_epochs' in original.train_cfg else ('iters', (3, 100))
    for duration in durations:
        cfg = copy.deepcopy(original)
        sizes = dict(img_scale=[64] if classifier else (320, 192), batch_size=2, workers=0)
        lines = shrink(cfg, ALL, **sizes, **{option: duration})
        assert all(len(line.split(': ')) > 1 for line in lines)
        assert any('pipeline' in line for line in lines) or 'shapes' in path.stem or 'tiny_imagenet' in path.stem
        assert cfg.train_dataloader.batch_size == 2 and cfg.val_dataloader.num_workers == 0
        assert cfg.train_cfg[f'max_{option}'] == duration and 1 <= cfg.train_cfg.val_interval <= duration
        values = rates(cfg, EPOCH)
        assert 0.5 <= max(values) <= 1.0 + 1e-9, 'the warm-up ends'
        assert values.index(max(values)) <= len(values) / 2, 'in the first half'
        if len(values) == 100:
            assert values[-1] < 0.2 * max(values), 'the learning rate decays'
    if '_upernet_ade' in path.stem or 'camvid' in path.stem:
        assert shrink(copy.deepcopy(original), ALL, crop_size=(64, 64))


@pytest.mark.parametrize(('loop_class', 'name'), [(EpochLoop, 'epoch'), (IterLoop, 'iter')])
def test_validations_left_counts_the_remaining_ones(loop_class, name):
    for interval, begin, last in itertools.product((1, 3, 7, 20), (1, 5, 30), (1, 6, 20)):
        points = [p for p in range(1, last + 1) if p >= begin and (p % interval == 0 or p == last)]
        loop = loop_class.__new__(loop_class)
        loop.__dict__.update({f'_max_{name}s': last, 'val_interval': interval, 'val_begin': begin})
        for done in range(last + 1):
            setattr(loop, f'_{name}', done)
            assert validations_left(loop) == sum(p > done for p in points)
