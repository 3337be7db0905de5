"""A trained model in two lines of Python."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from safetensors.torch import save_file
from torch import nn

import mlp_dense
from mlp_dense.config.reading import adapt_to_cpu
from mlp_dense.errors import CheckpointError, UserError
from support.configs import DETECTION, SEGMENTATION


@pytest.fixture(params=[DETECTION, SEGMENTATION], ids=['detection', 'segmentation'])
def trained(request, tmp_path):
    """(config, checkpoint, weights) of a model with random weights."""
    cfg = Config.fromfile(request.param)
    init_default_scope(cfg.default_scope)
    adapt_to_cpu(cfg)
    weights = MODELS.build(cfg.model).state_dict()
    path = tmp_path / 'epoch_1.pth'
    meta = dict(dataset_meta=dict(classes=tuple('abcdef'[: 5 if request.param == DETECTION else 6])))
    torch.save(dict(state_dict=weights, meta=meta), path)
    return request.param, path, weights


def test_two_lines(trained):
    config, path, weights = trained
    model = mlp_dense.load_model(config, path)
    assert not model.training and model.cfg.filename == config
    assert all(torch.equal(value.cpu(), weights[key]) for key, value in model.state_dict().items())
    assert model.dataset_meta['classes'][0] == 'a' and len(model.dataset_meta['palette']) >= 5
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())


def test_works_with_the_functions_of_mmdet_and_mmseg(trained):
    config, path, _ = trained
    model = mlp_dense.load_model(config, path, device='cpu')
    image = np.zeros((40, 56, 3), dtype=np.uint8)
    if config == DETECTION:
        from mmdet.apis import inference_detector

        assert inference_detector(model, image).pred_instances.masks.shape[1:] == (40, 56)
    else:
        from mmseg.apis import inference_model

        assert inference_model(model, image).pred_sem_seg.data.shape == (1, 40, 56)


def test_classes_of_the_config_when_the_file_has_none(trained, tmp_path):
    config, _, weights = trained
    save_file(weights, tmp_path / 'weights.safetensors')
    model = mlp_dense.load_model(Config.fromfile(config), tmp_path / 'weights.safetensors')
    assert 'triangle' in model.dataset_meta['classes']


def test_pretrained_weights_of_the_config_are_not_asked_for(trained):
    config, path, _ = trained
    cfg = Config.fromfile(config)
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='http://localhost:1/none.pth')
    mlp_dense.load_model(cfg, path)
    assert cfg.model.backbone.init_cfg.type == 'Pretrained', 'the config that was given is not changed'
    assert not mlp_dense.load_model(cfg, None).training


def test_wrong_files(trained, tmp_path):
    config, _, weights = trained
    other = tmp_path / 'other.pth'
    torch.save(dict(state_dict={key: value for key, value in weights.items() if 'head' not in key}), other)
    with pytest.raises(CheckpointError, match=r'other\.pth is not a checkpoint of this model'):
        mlp_dense.load_model(config, other)
    torch.save(dict(state_dict=weights, hook=print), other)
    with pytest.raises(CheckpointError, match=r'other\.pth is refused'):
        mlp_dense.load_model(config, other)


def test_given_model_is_ready(trained):
    config, path, _ = trained
    model = mlp_dense.load_model(config, path, torch.device('cpu'))
    assert model.dataset_meta.keys() == {'classes', 'palette'}
    classes, palette = model.dataset_meta['classes'], model.dataset_meta['palette']
    assert len(classes) == len(palette) and all(0 <= value <= 255 for colour in palette for value in colour)
    again = mlp_dense.load_model(config, path, 'cpu').dataset_meta['palette']
    assert palette == again, 'colours that were drawn are the same each time'


def test_class_names_that_are_not_the_models(trained, tmp_path):
    config, _, weights = trained
    path = tmp_path / 'two.pth'
    torch.save(dict(state_dict=weights, meta=dict(dataset_meta=dict(classes=('a', 'b')))), path)
    with pytest.raises(UserError, match=r'num_classes is [56], but the meta data of the checkpoint have 2 classes'):
        mlp_dense.load_model(config, path)
    cfg = Config.fromfile(config)
    cfg.pop('test_dataloader')
    with pytest.raises(UserError, match=r'(?i)neither the checkpoint nor the test data'):
        mlp_dense.load_model(cfg, None)


def test_wrong_configs_and_devices(trained, tmp_path):
    config, path, _ = trained
    for device in ('gpu', 'cuda:99', 'meta:x', 3.5):
        with pytest.raises(UserError, match=f'device {device} is unknown or absent'):
            mlp_dense.load_model(config, path, device)
    with pytest.raises(UserError, match=r'none\.py does not exist'):
        mlp_dense.load_model(tmp_path / 'none.py', path)
    with pytest.raises(UserError, match='has no model'):
        mlp_dense.load_model(Config(dict(default_scope='mmdet')), path)
    cfg = Config.fromfile(config)
    cfg.model.backbone.type = 'mlp_dense.HierMLP'
    with pytest.raises(UserError, match=r'model.backbone.type: mlp_dense.HierMLP .* did you mean mlp_dense.HireMLP'):
        mlp_dense.load_model(cfg, path)
