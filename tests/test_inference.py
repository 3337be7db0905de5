"""A trained model in two lines of Python."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from safetensors.torch import save_file
from torch import nn

import mlp_dense
from mlp_dense.errors import CheckpointError
from mlp_dense.runner import adapt_to_cpu

DETECTION = 'configs/detection/hire_mlp_mask_rcnn_shapes.py'
SEGMENTATION = 'configs/segmentation/hire_mlp_upernet_shapes.py'


@pytest.fixture(params=[DETECTION, SEGMENTATION], ids=['detection', 'segmentation'])
def trained(request, tmp_path, monkeypatch):
    """(config, checkpoint, weights) of a model with random weights."""
    monkeypatch.chdir(mlp_dense.__path__[0] + '/..')
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
    assert not model.training and model.cfg.filename.endswith(config)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert model.dataset_meta['classes'][0] == 'a' and len(model.dataset_meta['palette']) >= 5
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())


def test_works_with_the_functions_of_mmdet_and_mmseg(trained):
    config, path, _ = trained
    model = mlp_dense.load_model(config, path, device='cpu')
    picture = np.zeros((40, 56, 3), dtype=np.uint8)
    if config == DETECTION:
        from mmdet.apis import inference_detector

        assert inference_detector(model, picture).pred_instances.masks.shape[1:] == (40, 56)
    else:
        from mmseg.apis import inference_model

        assert inference_model(model, picture).pred_sem_seg.data.shape == (1, 40, 56)


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
