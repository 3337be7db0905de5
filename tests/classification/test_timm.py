"""Every family through timm: the interface of timm's models, and weights of classifiers and backbones."""

import pytest
import torch

timm = pytest.importorskip('timm', reason='timm is not installed: make test STACK=timm')
import mlp_dense  # noqa: E402
from mlp_dense.backbones import FAMILIES  # noqa: E402
from mlp_dense.backbones.fixed_grid import FixedGridMLP  # noqa: E402
from mlp_dense.errors import CheckpointError, UserError  # noqa: E402
from mlp_dense.timm import name_of  # noqa: E402
from reference import reference_of  # noqa: E402
from support.models import image  # noqa: E402

NAMES = ('hire_mlp_tiny', 'as_mlp_tiny', 'cycle_mlp_b1', 'wave_mlp_t_dw', 'mlp_mixer_s32', 'vip_s14', 'sparse_mlp_s16')
OF_FAMILY = dict(zip(FAMILIES, NAMES, strict=True))
BY_NAME = pytest.mark.parametrize('name', NAMES)


def create(name: str, **kwargs) -> torch.nn.Module:
    return timm.create_model(name, **kwargs).eval()


def dense_backbone(name: str, **kwargs) -> torch.nn.Module:
    """Return the same variant as a dense backbone."""
    family = next(family for family, family_name in OF_FAMILY.items() if family_name == name)
    return family(name.removeprefix(name_of(family, '')), **kwargs).eval()


def test_every_variant_is_registered():
    names = [name_of(family, arch) for family in FAMILIES for arch in family.archs]
    assert all(timm.is_model(name) for name in names) and len(set(names)) == 30


@BY_NAME
def test_weights_load_into_a_dense_backbone_and_back(name):
    classifier, dense = create(name, num_classes=7), dense_backbone(name)
    dense.load_state_dict(classifier.state_dict())
    second = create(name, num_classes=7)
    second.load_state_dict(dense.state_dict())
    for module in ('stem', 'stages'):
        loaded, source = getattr(dense, module).state_dict(), getattr(classifier, module).state_dict()
        assert all(torch.equal(loaded[key], source[key]) for key in source)
        assert all(torch.equal(source[key], tensor) for key, tensor in getattr(second, module).state_dict().items())
    last = dense.norms[-1].state_dict()
    assert all(torch.equal(last[key], tensor) for key, tensor in second.norm.state_dict().items())


@BY_NAME
def test_classifier_trains_and_predicts(name):
    model = create(name, num_classes=5, drop_path_rate=0.1).train()
    model.set_grad_checkpointing()
    model(image(2, 3, 64, 96)).sum().backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []
    model.eval()
    with torch.no_grad():
        assert model(image(2, 3, 50, 75)).shape == (2, 5)


@BY_NAME
def test_features_have_the_declared_sizes(name):
    model = create(name, features_only=True, in_chans=4)
    x = image(1, 4, 96, 128)
    with torch.no_grad():
        maps = model(x)
    assert model.feature_info.reduction() == [4, 8, 16, 32]
    assert [map.shape[1] for map in maps] == model.feature_info.channels()
    assert [tuple(map.shape[2:]) for map in maps] == [(96 // s, 128 // s) for s in (4, 8, 16, 32)]
    selected = create(name, features_only=True, out_indices=(1, 2), in_chans=4)
    assert len(selected.model.stages) == 3 and not selected.model.get_classifier().state_dict()
    with torch.no_grad():
        assert [tuple(map.shape[2:]) for map in selected(x)] == [(12, 16), (6, 8)]


@BY_NAME
def test_features_equal_those_of_the_dense_backbone(name):
    model, dense = create(name, features_only=True), dense_backbone(name, out_norm=False)
    weights = {key.removeprefix('model.'): tensor for key, tensor in model.state_dict().items()}
    dense.load_state_dict(dense.state_dict() | weights)
    x = image(1, 3, 90, 130)
    with torch.no_grad():
        for map, expected in zip(model(x), dense(x), strict=True):
            torch.testing.assert_close(map, expected)


@BY_NAME
def test_forward_intermediates_returns_selected_maps(name):
    model = create(name)
    x = image(2, 3, 64, 64)
    with torch.no_grad():
        last, maps = model.forward_intermediates(x)
        torch.testing.assert_close(last, model.forward_features(x))
        assert len(maps) == 4
        torch.testing.assert_close(model.norm(maps[-1]), last)
        (only,) = model.forward_intermediates(x, indices=[1], stop_early=True, intermediates_only=True)
        torch.testing.assert_close(only, maps[1])
        normed = model.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)
        torch.testing.assert_close(normed[0], last)
        pooled = model.forward_head(last, pre_logits=True)
        assert pooled.shape == (2, model.num_features) == (2, model.head_hidden_size)
        torch.testing.assert_close(model.get_classifier()(pooled), model(x))
    with pytest.raises(UserError, match="use 'NCHW'"):
        model.forward_intermediates(x, output_fmt='NLC')


@BY_NAME
def test_head_follows_the_default_cfg_and_can_be_reset(name):
    model = create(name)
    cfg = model.default_cfg
    assert model.get_submodule(cfg['classifier']) is model.get_classifier()
    assert model.get_submodule(cfg['first_conv']).in_channels == 3
    assert cfg['num_classes'] == model.num_classes == 1000 and cfg['input_size'] == (3, 224, 224)
    model.reset_classifier(0)
    with torch.no_grad():
        assert model(image(1, 3, 64, 64)).shape == (1, model.num_features)
        model.reset_classifier(3, 'max')
        assert model(image(1, 3, 64, 64)).shape == (1, 3)
        model.reset_classifier(0, '')
        assert model(image(1, 3, 64, 64)).ndim == 4


@BY_NAME
def test_layers_equal_those_of_the_backbone(name):
    from timm.models import group_parameters

    model, backbone = create(name), dense_backbone(name, out_indices=(3,), out_norm=False)
    groups = group_parameters(model, model.group_matcher())
    backbone.stem, backbone.stages = model.stem, model.stages
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    expected = [{names[id(p)] for module in layer for p in module.parameters()} for layer in backbone.layers()]
    *layers, others = map(set, groups.values())
    assert layers == expected and {key.partition('.')[0] for key in others} == {'norm', 'head'}
    assert len(group_parameters(model, model.group_matcher(coarse=True))) == 6
    assert all(key.endswith('bias') for key in model.no_weight_decay())


@BY_NAME
def test_feature_extraction_by_fx_is_equal(name):
    from timm.models._features_fx import create_feature_extractor

    model = create(name, num_classes=5)
    graph = create_feature_extractor(model, ['stages.1', 'head'])
    x = image(2, 3, 64, 64)
    outs = graph(x)
    torch.testing.assert_close(outs['head'], model(x))
    outs['head'].sum().backward()
    assert all(parameter.grad is not None for parameter in graph.parameters())


@BY_NAME
def test_device_and_dtype_are_used(name):
    model = create(name, dtype=torch.bfloat16, device='meta')
    assert {(p.dtype, p.device.type) for p in model.parameters()} == {(torch.bfloat16, 'meta')}
    with torch.device('meta'):
        create(name)


def test_invalid_arguments_are_an_error():
    with pytest.raises(UserError, match='has an output_stride of 32 only'):
        create('cycle_mlp_b1', output_stride=16)
    with pytest.raises(UserError, match='unknown argument depht'):
        create('cycle_mlp_b1', depht=3)


@pytest.fixture
def official(save):
    """Return (path, weights) of a published classifier's file, which contains other objects than tensors."""
    import argparse

    reference, family = reference_of(mlp_dense.CycleMLP), mlp_dense.CycleMLP
    weights = reference.official_weights(reference.official_shapes(family.archs['b1'], (), 1000), dtype=torch.float32)
    return save({'model': weights, 'args': argparse.Namespace(lr=1)}), weights


def test_published_file_is_loaded(official, log_lines):
    file, weights = official
    classifier = create('cycle_mlp_b1', checkpoint_path=file)
    assert torch.equal(classifier.head.fc.weight, weights['head.weight'])
    assert log_lines[-1].endswith('; left out 20 (CycleFC offsets); norm and head loaded')
    overlay = dict(file=str(file))
    grey = create('cycle_mlp_b1', pretrained=True, pretrained_cfg_overlay=overlay, num_classes=5, in_chans=1)
    assert torch.equal(grey.stages[0].blocks[0].norm1.weight, classifier.stages[0].blocks[0].norm1.weight)
    assert log_lines[-2].endswith('left out 2 (classifier head and norm); norm loaded; head fresh')
    assert log_lines[-1] == 'The first convolution is converted from 3 to 1 channels by timm.'
    torch.testing.assert_close(grey.stem.conv.weight, classifier.stem.conv.weight.sum(1, keepdim=True))
    features = create('cycle_mlp_b1', pretrained=True, pretrained_cfg_overlay=overlay, features_only=True)
    assert torch.equal(features.model.stem.conv.weight, classifier.stem.conv.weight)
    with pytest.raises(CheckpointError, match='has 1000 classes, the model 5: create it with num_classes=1000'):
        create('cycle_mlp_b1', checkpoint_path=file, num_classes=5)
    with pytest.raises(CheckpointError, match='use a checkpoint of this family and arch'):
        create('cycle_mlp_b2', checkpoint_path=file)
    features = create('cycle_mlp_b1', checkpoint_path=file, features_only=True)
    assert torch.equal(features.model.stem.conv.weight, classifier.stem.conv.weight)


def test_timms_loader_is_not_replaced():
    assert timm.models._factory.load_checkpoint is timm.models.load_checkpoint


def test_fixed_grids_support_another_size():
    for family, name in OF_FAMILY.items():
        if issubclass(family, FixedGridMLP):
            with torch.no_grad():
                assert create(name, num_classes=2, img_size=256)(image(1, 3, 256, 288)).shape == (1, 2)
