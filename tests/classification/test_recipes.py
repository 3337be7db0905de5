"""ImageNet configs equal the recipes in docs/classification.md."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS

timm = pytest.importorskip('timm', reason='timm is not installed: make test STACK=timm')
from timm.optim import param_groups_weight_decay  # noqa: E402
from timm.scheduler import CosineLRScheduler  # noqa: E402

from mlp_dense.backbones import FAMILIES  # noqa: E402
from mlp_dense.classification.model import CosineLR  # noqa: E402
from mlp_dense.config.config_file import enter_scope  # noqa: E402
from mlp_dense.timm import default_cfgs, name_of  # noqa: E402
from support.configs import ROOT, config  # noqa: E402

LINES = (ROOT / 'docs' / 'classification.md').read_text(encoding='utf-8').splitlines()
ROWS = {line.split('`')[1]: line.replace('*', '').split('|')[2:-1] for line in LINES if line.startswith('| `')}
NAMES = [name_of(family, arch) for family in FAMILIES for arch in family.archs]


def test_every_variant_has_a_recipe():
    assert list(ROWS) == NAMES


@pytest.mark.parametrize('name', NAMES)
def test_config_equals_the_recipe(name):
    cfg = Config.fromfile(config(f'classification/{name}_imagenet'))
    row = [cell.strip() for cell in ROWS[name]]
    batch, lr, epochs, warmup, clipping, drop_path, repeated, averaged, interpolation, crop, _ = row
    wrapper, loader, optimizer = cfg.optim_wrapper, cfg.train_dataloader, cfg.optim_wrapper.optimizer
    train, test = (loader.dataset.pipeline[1] for loader in (cfg.train_dataloader, cfg.test_dataloader))
    assert (str(loader.batch_size), f'{optimizer.lr:g}', str(cfg.train_cfg.max_epochs)) == (batch, lr, epochs)
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=8 * int(batch))
    assert str(wrapper.get('clip_grad', {}).get('max_norm', '')) == clipping
    assert f'{cfg.model.backbone.drop_path_rate:g}' == drop_path
    assert loader.drop_last and loader.sampler.type == (
        'mlp_dense.RepeatedAugmentation' if repeated == '3' else 'DefaultSampler'
    )
    ema = [1 - hook.momentum for hook in cfg.custom_hooks if hook.type == 'EMAHook']
    assert ema == ([float(averaged)] if averaged else [])
    assert (train.interpolation, str(test.crop_pct)) == (interpolation, crop)
    assert optimizer.type == 'AdamW' and optimizer.betas == (0.9, 0.999) and optimizer.eps == 1e-8
    is_linear = 'linear' in warmup
    assert optimizer.weight_decay == (0.1 if is_linear else 0.05)
    schedule = cfg.param_scheduler
    if is_linear:
        first, second = schedule
        assert first.end == second.begin == int(warmup.partition(',')[0]) and second.end == int(epochs) == 300
        assert optimizer.lr * second.end_factor == pytest.approx(1e-5)
        assert train.auto_augment == 'rand-m15-n2-mmax15'
        assert cfg.model.train_cfg == dict(
            loss=dict(type='BinaryCrossEntropy', smoothing=0.0, sum_classes=True),
            mixup=dict(mixup_alpha=0.5, cutmix_alpha=0.0, label_smoothing=0.0),
        )
        assert cfg.model.head.bias == -6.9
    else:
        assert schedule.warmup == int(warmup.partition(',')[0]) and schedule.length == 300
        assert (schedule.lr_min, schedule.warmup_lr) == (1e-5, 1e-6)
        assert schedule.get('convert_to_iter_based', False) == ('by iteration' in warmup)
        assert train.auto_augment == 'rand-m9-mstd0.5-inc1'
        assert cfg.model.train_cfg == dict(
            loss=dict(type='SoftTargetCrossEntropy'),
            mixup=dict(mixup_alpha=0.8, cutmix_alpha=1.0, switch_prob=0.5, label_smoothing=0.1),
            erasing=dict(probability=0.25, mode='pixel'),
        )
    assert (train.input_size, train.scale, train.hflip) == (224, (0.08, 1.0), 0.5)


@pytest.mark.parametrize('name', NAMES)
def test_preprocessing_equals_timms_default_cfg(name):
    cfg, default_cfg = Config.fromfile(config(f'classification/{name}_imagenet')), default_cfgs[name].default
    test = cfg.test_dataloader.dataset.pipeline[1]
    assert (test.input_size, test.crop_pct) == (default_cfg.input_size[1], default_cfg.crop_pct)
    assert test.interpolation == default_cfg.interpolation
    normalize = cfg.model.data_preprocessor
    assert normalize.bgr_to_rgb and normalize.mean == pytest.approx([255 * value for value in default_cfg.mean])
    assert normalize.std == pytest.approx([255 * value for value in default_cfg.std])
    fill = cfg.train_dataloader.dataset.pipeline[1].get('mean', timm.data.IMAGENET_DEFAULT_MEAN)
    assert tuple(fill) == tuple(default_cfg.mean)  # fills the area that rotations leave free


@pytest.mark.parametrize('family', FAMILIES, ids=lambda cls: cls.__name__)
def test_weight_decay_applies_to_the_same_parameters_as_in_timm(family):
    cfg = Config.fromfile(config(f'classification/{name_of(family, next(iter(family.archs)))}_imagenet'))
    enter_scope(cfg)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    cfg.optim_wrapper.type = 'OptimWrapper'
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    ours = {id(p) for group in wrapper.optimizer.param_groups if group['weight_decay'] for p in group['params']}
    timms = param_groups_weight_decay(model.backbone, 0.05, model.backbone.no_weight_decay())
    assert ours == {id(p) for group in timms if group['weight_decay'] for p in group['params']}


@pytest.mark.parametrize('by_iteration', [False, True])
def test_learning_rate_equals_timms(by_iteration):
    def optimizer():
        return torch.optim.AdamW([dict(params=[torch.nn.Parameter(torch.ones(1))], lr=lr) for lr in (1e-3, 2e-3)])

    settings, epoch, ours, timms = dict(lr_min=1e-5, warmup_lr=1e-6), 3 if by_iteration else 1, optimizer(), optimizer()
    make = CosineLR.build_iter_from_epoch if by_iteration else CosineLR
    length = dict(epoch_length=epoch) if by_iteration else {}
    wrapper = OptimWrapper(ours)
    schedule = make(wrapper, length=10, warmup=2, end=12, **settings, **length)
    expected = CosineLRScheduler(timms, 10 * epoch, lr_min=1e-5, warmup_t=2 * epoch, warmup_lr_init=1e-6)
    seen = []
    for step in range(12 * epoch):
        rates = [group['lr'] for group in ours.param_groups]
        assert rates == [group['lr'] for group in timms.param_groups]
        seen.append(rates[0])
        wrapper.step()
        schedule.step()
        expected.step(step + 1)
    assert seen[0] == 1e-6 and seen[-1] == 1e-5 and max(seen) > 9e-4
    resumed = make(OptimWrapper(optimizer()), length=10, warmup=2, end=12, **settings, **length)
    resumed.load_state_dict(schedule.state_dict())
    assert resumed.last_step == schedule.last_step
