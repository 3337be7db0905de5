"""Trained models in Python: load_model, predict and draw."""

import copy
import pickle

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from safetensors.torch import save_file
from torch import nn

import mlp_dense
from mlp_dense.errors import CheckpointError, UserError
from mlp_dense.training.machine import adapt_to_cpu
from support.configs import DETECTION, SEGMENTATION, config


@pytest.fixture(params=[DETECTION, SEGMENTATION], ids=['detection', 'segmentation'])
def trained(request, tmp_path):
    """Return (config, checkpoint, weights) of a model with random weights."""
    cfg = Config.fromfile(request.param)
    init_default_scope(cfg.default_scope)
    adapt_to_cpu(cfg)
    weights = MODELS.build(cfg.model).state_dict()
    path = tmp_path / 'epoch_1.pth'
    meta = dict(dataset_meta=dict(classes=tuple('abcdef'[: 5 if request.param == DETECTION else 6])))
    torch.save(dict(state_dict=weights, meta=meta), path)
    return request.param, path, weights


def test_model_is_in_eval_mode_with_all_weights_and_class_names(trained):
    config_file, path, weights = trained
    model = mlp_dense.load_model(config_file, path)
    assert not model.training and model.cfg.filename == config_file
    assert all(torch.equal(value.cpu(), weights[key]) for key, value in model.state_dict().items())
    assert model.dataset_meta['classes'][0] == 'a' and len(model.dataset_meta['palette']) >= 5
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())


def test_model_works_with_functions_of_mmdet_and_mmseg(trained):
    model = mlp_dense.load_model(*trained[:2], device='cpu')
    image = np.zeros((40, 56, 3), dtype=np.uint8)
    if trained[0] == DETECTION:
        from mmdet.apis import inference_detector

        assert inference_detector(model, image).pred_instances.masks.shape[1:] == (40, 56)
    else:
        from mmseg.apis import inference_model

        assert inference_model(model, image).pred_sem_seg.data.shape == (1, 40, 56)


def test_classes_are_those_of_the_config_if_the_checkpoint_has_none(trained, tmp_path):
    save_file(trained[2], tmp_path / 'weights.safetensors')
    model = mlp_dense.load_model(Config.fromfile(trained[0]), tmp_path / 'weights.safetensors')
    assert 'triangle' in model.dataset_meta['classes']


def test_pretrained_weights_of_the_config_are_not_loaded(trained):
    cfg = Config.fromfile(trained[0])
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='http://localhost:1/none.pth')
    mlp_dense.load_model(cfg, trained[1])
    assert cfg.model.backbone.init_cfg.type == 'Pretrained', 'the config of the caller is not changed'
    assert not mlp_dense.load_model(cfg, None).training


def test_unsuitable_checkpoint_is_refused(trained, tmp_path):
    config_file, _, weights = trained
    other = tmp_path / 'other.pth'
    torch.save(dict(state_dict={key: value for key, value in weights.items() if 'head' not in key}), other)
    with pytest.raises(CheckpointError, match=r'other\.pth is not a checkpoint of this model'):
        mlp_dense.load_model(config_file, other)
    torch.save(dict(state_dict=weights, hook=print), other)
    with pytest.raises(CheckpointError, match=r'other\.pth is refused'):
        mlp_dense.load_model(config_file, other)


def test_dataset_meta_has_a_stable_colour_for_each_class(trained):
    meta = mlp_dense.load_model(*trained[:2], torch.device('cpu')).dataset_meta
    assert meta.keys() == {'classes', 'palette'} and len(meta['classes']) == len(meta['palette'])
    assert all(0 <= value <= 255 for colour in meta['palette'] for value in colour)
    assert mlp_dense.load_model(*trained[:2], 'cpu').dataset_meta == meta, 'random colours are the same each time'


def test_wrong_number_of_class_names_is_refused(trained, tmp_path):
    config_file, _, weights = trained
    path = tmp_path / 'two.pth'
    torch.save(dict(state_dict=weights, meta=dict(dataset_meta=dict(classes=('a', 'b')))), path)
    with pytest.raises(UserError, match=r'num_classes is [56], but the meta data of the checkpoint have 2 classes'):
        mlp_dense.load_model(config_file, path)
    cfg = Config.fromfile(config_file)
    cfg.pop('test_dataloader')
    with pytest.raises(UserError, match=r'(?i)neither the checkpoint nor the test data'):
        mlp_dense.load_model(cfg, None)


def test_unusable_config_or_device_is_refused(trained, tmp_path):
    config_file, path, _ = trained
    for device in ('gpu', 'cuda:99', 'meta:x', 3.5):
        with pytest.raises(UserError, match=f'device {device} is unknown or absent'):
            mlp_dense.load_model(config_file, path, device)
    with pytest.raises(UserError, match=r'none\.py does not exist'):
        mlp_dense.load_model(tmp_path / 'none.py', path)
    with pytest.raises(UserError, match='has no model'):
        mlp_dense.load_model(Config(dict(default_scope='mmdet')), path)
    cfg = Config.fromfile(config_file)
    cfg.model.backbone.type = 'mlp_dense.HierMLP'
    with pytest.raises(UserError, match=r'model.backbone.type: mlp_dense.HierMLP .* did you mean mlp_dense.HireMLP'):
        mlp_dense.load_model(cfg, path)


# Prediction and drawing


@pytest.fixture(params=[DETECTION, SEGMENTATION, config('classification/hire_mlp_shapes')], ids=['det', 'seg', 'class'])
def model(request):
    """Return a loaded model of a task, with random weights."""
    torch.manual_seed(0)
    cfg = Config.fromfile(request.param)
    if 'classification' in request.param:
        pytest.importorskip('timm')
        cfg.test_dataloader.dataset.metainfo = dict(classes=tuple('abcdefgh'[: cfg.model.head.num_classes]))
    if request.param == DETECTION:
        cfg.model.test_cfg.rcnn.score_thr = 0.0  # random weights give low scores
    return mlp_dense.load_model(cfg, None, 'cpu')


@pytest.fixture
def files(shapes) -> list:
    return sorted((shapes / 'val').glob('*.jpg'))[:3]


def values_of(sample) -> torch.Tensor:
    if 'pred_instances' in sample:
        instances = sample.pred_instances
        return torch.cat([instances.bboxes, instances.scores[:, None], instances.labels[:, None]], 1)
    return sample.pred_sem_seg.data if 'pred_sem_seg' in sample else sample.pred_class.probability


def test_predict_on_path_and_rgb_array_is_equal(model, files):
    rgb = cv2.imread(str(files[0]))[..., ::-1]
    result = model.predict(str(files[0]))
    assert all(torch.equal(values_of(result), values_of(model.predict(image))) for image in (files[0], rgb))
    if 'seg_logits' in result:
        swapped = model.predict(rgb[..., ::-1])
        assert not torch.equal(result.seg_logits.data, swapped.seg_logits.data), 'the order of the channels matters'
    assert tuple(result.ori_shape[:2]) == rgb.shape[:2]


def test_predict_on_list_keeps_order_whatever_the_batch_size(model, files):
    images = [files[0], cv2.imread(str(files[1]))[:64, :, ::-1], str(files[2])]
    singles = [values_of(model.predict(image)) for image in images]
    for batch_size in (1, 3):
        results = model.predict(images, batch_size=batch_size)
        assert [tuple(result.ori_shape[:2]) for result in results] == [(96, 96), (64, 96), (96, 96)]
        for result, single in zip(results, singles, strict=True):
            torch.testing.assert_close(values_of(result), single, atol=1e-4, rtol=1e-4)
    assert model.predict([]) == []
    with pytest.raises(UserError, match='batch_size is 0; set it to 1 or more'):
        model.predict(images, batch_size=0)


def test_draw_returns_rgb_and_writes_a_file(model, files, tmp_path):
    rgb = cv2.imread(str(files[0]))[..., ::-1]
    result = model.predict(rgb)
    drawn = model.draw(files[0], result, out=tmp_path / 'new' / 'drawn.png', score_thr=0.0)
    assert drawn.dtype == np.uint8 and drawn.shape == (384, 384, 3), 'enlarged by an integer factor'
    assert np.array_equal(cv2.imread(str(tmp_path / 'new' / 'drawn.png'))[..., ::-1], drawn)
    assert np.array_equal(drawn, model.draw(rgb, result, score_thr=0.0))
    enlarged = rgb.repeat(4, 0).repeat(4, 1)
    assert (drawn != enlarged).any()
    if 'pred_instances' in result:
        assert np.array_equal(model.draw(rgb, result, score_thr=1.0), enlarged), 'nothing is drawn'


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        ('absent.jpg', r'absent\.jpg does not exist or is not a file'),
        (np.zeros((3, 40, 56), np.uint8), r'shape \(3, 40, 56\) .* pass \(height, width, 3\) in RGB order'),
        (np.zeros((40, 56), np.uint8), r'shape \(40, 56\)'),
        (np.zeros((40, 56, 4), np.uint8), r'shape \(40, 56, 4\)'),
        (np.zeros((0, 56, 3), np.uint8), r'shape \(0, 56, 3\)'),
        (np.zeros((40, 56, 3), np.float32), 'dtype float32; .* as uint8, with values from 0 to 255'),
        (torch.zeros(40, 56, 3), 'An image is of type Tensor; pass a path or a NumPy array'),
    ],
    ids=['absent', 'channels first', 'gray', 'alpha', 'empty', 'float', 'tensor'],
)
def test_predict_and_draw_refuse_unusable_images(trained, image, message):
    model, usable = mlp_dense.load_model(*trained[:2], 'cpu'), np.zeros((40, 56, 3), np.uint8)
    result = model.predict(usable)
    for function, *arguments in ((model.predict, image), (model.predict, [usable, image]), (model.draw, image, result)):
        with pytest.raises(UserError, match=message):
            function(*arguments)


def test_draw_refuses_other_images_and_unusable_files(trained, tmp_path):
    model = mlp_dense.load_model(*trained[:2], 'cpu')
    image = np.zeros((40, 56, 3), np.uint8)
    result = model.predict(image)
    with pytest.raises(UserError, match='The result is of an image of 40x56 pixels, this image has 30x56'):
        model.draw(image[:30], result)
    with pytest.raises(UserError, match=r'The result has no pred_\w+; pass a data sample that predict\(\) returned'):
        model.draw(image, type(result)(metainfo=result.metainfo))
    with pytest.raises(UserError, match=r'drawn\.unknown: OpenCV cannot write this format'):
        model.draw(image, result, tmp_path / 'drawn.unknown')
    (tmp_path / 'broken.png').write_bytes(b'broken')
    with pytest.raises(UserError, match='cannot be written'):
        model.draw(image, result, tmp_path / 'broken.png' / 'drawn.png')
    with pytest.raises(UserError, match=r'broken\.png cannot be decoded'):
        model.predict(tmp_path / 'broken.png')


def test_loaded_model_keeps_its_class_and_can_be_copied_and_pickled(trained):
    model = mlp_dense.load_model(*trained[:2], 'cpu')
    original = type(MODELS.build(model.cfg.model))
    assert isinstance(model, original) and type(model).__name__ == original.__name__
    assert type(model) is type(mlp_dense.load_model(*trained[:2], 'cpu'))
    image = np.full((40, 56, 3), 100, np.uint8)
    expected = values_of(model.predict(image))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), mlp_dense.fuse(model)):
        assert type(other) is type(model) and other is not model
        torch.testing.assert_close(values_of(other.predict(image)), expected, atol=1e-4, rtol=1e-3)
