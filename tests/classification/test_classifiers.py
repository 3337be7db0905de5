"""Classifiers of configs: logits of official files, fine-tuning, and backbones that start from classifiers."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement, InstanceData
from torch import nn

timm = pytest.importorskip('timm', reason='timm is not installed: make test STACK=timm')
import mlp_dense  # noqa: E402
from mlp_dense.backbones import FAMILIES  # noqa: E402
from mlp_dense.config.config_file import enter_scope  # noqa: E402
from mlp_dense.errors import CheckpointError, UserError  # noqa: E402
from mlp_dense.reports.complexity import complexity  # noqa: E402
from mlp_dense.timm import name_of  # noqa: E402
from reference import fingerprint_of, reference_of  # noqa: E402
from support.configs import config  # noqa: E402
from support.models import SMALL, image, official  # noqa: E402
from support.tools import call  # noqa: E402

CLASSIFIERS = [(f, e) for f in FAMILIES for e in reference_of(f).fingerprints if e.startswith('classifier_')]


def built(name: str, **changes) -> torch.nn.Module:
    cfg = Config.fromfile(config(f'classification/{name}'))
    cfg.merge_from_dict(changes)
    enter_scope(cfg)
    return MODELS.build(cfg.model)


def small(family: type, num_classes: int = 3, **backbone) -> torch.nn.Module:
    enter_scope(Config.fromfile(config('classification/hire_mlp_shapes')))
    backbone.update(type=f'mlp_dense.{family.__name__}', arch=SMALL)
    return MODELS.build(dict(type='mlp_dense.ImageClassifier', backbone=backbone, head=dict(num_classes=num_classes)))


@pytest.mark.parametrize('family, entry', CLASSIFIERS, ids=lambda value: getattr(value, '__name__', value))
def test_config_and_timm_reproduce_the_official_logits(family, entry, save):
    """The official file is loaded as in tools/test.py."""
    expected, reference, arch = fingerprint_of(family, entry), reference_of(family), entry.removeprefix('classifier_')
    shapes = reference.official_shapes(family.archs[arch], (), 1000)
    file = save({'model': reference.official_weights(shapes)})
    name = name_of(family, arch)
    classifier = mlp_dense.load_model(config(f'classification/{name}_imagenet'), file, 'cpu')
    for model in (classifier.double(), timm.create_model(name).eval().double()):
        assert sum(parameter.numel() for parameter in model.parameters()) == expected['n_params']
        model.load_state_dict(reference.official_weights(shapes))  # again in float64
        for run in expected['runs']:
            x = torch.randn(run['input'], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            with torch.inference_mode():
                logits = model(x)
            assert list(logits.shape) == run['logits']['shape']
            values = torch.tensor(run['logits']['values'], dtype=x.dtype)
            torch.testing.assert_close(logits.flatten()[run['logits']['idx']], values, rtol=0, atol=1e-9)


@pytest.mark.parametrize('name, hint', [('CrossEntropyLos', 'did you mean CrossEntropyLoss'), ('Qqq', 'no Qqq.')])
def test_unknown_loss_is_explained(name, hint):
    with pytest.raises(UserError, match=f'train_cfg.loss.type: timm.loss and torch.nn have .*{hint}'):
        built('hire_mlp_shapes', **{'model.train_cfg': dict(loss=dict(type=name))})


def test_fine_tuning_starts_with_a_fresh_head(save, log_lines):
    weights = official(mlp_dense.HireMLP, classes=1000)
    pretrained = dict(type='Pretrained', checkpoint=save({'state_dict': weights}))
    model = built('hire_mlp_shapes', **{'model.backbone': dict(arch=dict(SMALL, _delete_=True), init_cfg=pretrained)})
    model.init_weights()
    assert log_lines[-1].endswith('left out 2 (classifier head and norm); norm loaded; head fresh')
    assert torch.equal(model.backbone.norm.bias, weights['norm.bias'].float())
    assert model.backbone.get_classifier().out_features == 5


def test_dense_backbone_starts_from_a_training(save, family, log_lines):
    classifier = small(family, 7)
    file = save(dict(state_dict=classifier.state_dict(), meta=dict(dataset_meta=dict(classes=tuple('abcdefg')))))
    dense = family(SMALL, init_cfg=dict(type='Pretrained', checkpoint=file))
    dense.init_weights()
    assert '(classifier head and norm); output norms with random weights: norms.0' in log_lines[-1]
    for module in ('stem', 'stages'):
        loaded, source = getattr(dense, module).state_dict(), getattr(classifier.backbone, module).state_dict()
        assert all(torch.equal(loaded[key], source[key]) for key in source)


def test_timm_loads_a_training(save):
    model = built('cycle_mlp_b1_tiny_imagenet_50')
    file = save(dict(state_dict=model.state_dict()))
    loaded = timm.create_model('cycle_mlp_b1', num_classes=50, checkpoint_path=file).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(image(1, 3, 64, 64)), model.eval()(image(1, 3, 64, 64)), rtol=0, atol=0)


def test_bias_and_loss_of_the_config_are_used():
    model = built('mlp_mixer_s32_imagenet')
    assert torch.equal(model.backbone.get_classifier().bias, torch.full((1000,), -6.9))
    with pytest.raises(UserError, match='have no Hinge'):
        built('hire_mlp_shapes', **{'model.train_cfg.loss': dict(type='Hinge')})


def test_soft_loss_without_mixup_equals_cross_entropy():
    """Without Mixup, labels are not distributions yet."""
    losses = {}
    for loss_type in ('SoftTargetCrossEntropy', 'CrossEntropyLoss'):
        torch.manual_seed(0)
        model = built('hire_mlp_shapes', **{'model.train_cfg': dict(loss=dict(type=loss_type), _delete_=True)}).eval()
        samples = [BaseDataElement(gt_class=InstanceData(labels=torch.tensor([i]))) for i in (4, 0)]
        losses[loss_type] = model(image(2, 3, 64, 64), samples, mode='loss')['loss']
    torch.testing.assert_close(*losses.values())


@pytest.mark.parametrize('missing', ['head', 'norm', 'classes', 'dense'])
def test_testing_needs_the_head_and_its_norm(save, missing):
    """A training run that starts from the file does not need them."""
    weights = official(mlp_dense.HireMLP, classes=5 if missing != 'classes' else 1000)
    for key in [key for key in weights if key.startswith(f'{missing}.')]:
        del weights[key]
    if missing == 'dense':
        weights = {f'backbone.{key}': tensor for key, tensor in mlp_dense.HireMLP(SMALL).state_dict().items()}
    cfg = Config.fromfile(config('classification/hire_mlp_shapes'))
    cfg.model.backbone.arch, cfg.test_dataloader.dataset.metainfo = SMALL, dict(classes=tuple('abcde'))
    with pytest.raises(CheckpointError, match=r'is not a checkpoint of this model .* missing keys in'):
        mlp_dense.load_model(cfg, save({'state_dict': weights}), 'cpu')


def test_frozen_stages_equal_those_of_a_detector(family):
    model = small(family, frozen_stages=2, norm_eval=True).train().backbone
    frozen = nn.ModuleList([model.stem, *model.stages[:2]])
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert not any(module.training for module in frozen.modules() if module is not frozen)
    assert model.stages[2].training and model.head.training
    assert not any(module.training for module in model.modules() if isinstance(module, nn.BatchNorm2d))


def test_inspection_and_complexity_support_classifiers(save, capsys):
    file, arch = config('classification/hire_mlp_tiny_imagenet'), 'tiny'
    reference = reference_of(mlp_dense.HireMLP)
    weights = reference.official_weights(reference.official_shapes(mlp_dense.HireMLP.archs[arch], (), 1000))
    assert call('checkpoint', 'inspect', save({'model': weights}), '--config', file) == 0
    assert 'loads: ' in (output := capsys.readouterr().out) and 'does not load' not in output
    cfg = Config.fromfile(file)
    enter_scope(cfg)
    counts = complexity(cfg.model, 224, 224)
    assert counts.macs == counts.backbone_macs and counts.params == counts.backbone_params


def test_layer_decay_applies_to_classifiers(family):
    model = small(family)
    wrapper = dict(constructor='mlp_dense.LayerDecayConstructor', optimizer=dict(type='SGD', lr=1.0))
    wrapper['paramwise_cfg'] = dict(layer_decay_rate=0.5)
    groups = build_optim_wrapper(model, wrapper).optimizer.param_groups
    rates = {id(group['params'][0]): group['lr'] for group in groups}
    stem_rates = {rates[id(parameter)] for parameter in model.backbone.stem.parameters()}
    assert stem_rates == {0.5 ** (1 + sum(SMALL['depths']))}
    assert {rates[id(parameter)] for parameter in model.backbone.head.parameters()} == {1.0}


def test_checkpoint_of_another_family_is_an_error(save):
    file = save({'model': official(mlp_dense.CycleMLP, classes=1000)})
    with pytest.raises(CheckpointError, match='use a checkpoint of this family and arch'):
        mlp_dense.load_model(config('classification/hire_mlp_tiny_imagenet'), file, 'cpu')


@pytest.mark.parametrize('family', FAMILIES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize('size', [224, 256])
def test_other_resolutions_are_supported(family, size):
    model = small(family).eval()
    with torch.no_grad():
        assert model(image(1, 3, size, size)).isfinite().all()
