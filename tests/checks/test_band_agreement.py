"""Agreement of loader, transforms, preprocessor and backbone on the bands of the images."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mlp_dense.checks.band_agreement import check_bands, lost_by_opencv
from mlp_dense.errors import UserError
from mlp_dense.inference import load_model
from support.configs import CONFIGS, config, thin

DETECTION, SEGMENTATION = config('detection/hire_mlp_mask_rcnn_bands'), config('segmentation/hire_mlp_upernet_bands')
RGB = config('detection/hire_mlp_mask_rcnn_shapes')
LOADERS = ('train', 'val', 'test')
LOAD = dict(type='mlp_dense.LoadMultiBandImage')


def test_all_configs_of_this_package_agree():
    for path in CONFIGS:
        check_bands(Config.fromfile(path), LOADERS)


@pytest.mark.parametrize(
    ('transform', 'bands', 'reason'),
    [
        (dict(type='PhotoMetricDistortion'), 3, 'needs RGB images of 8 bits'),
        (dict(type='mmdet.YOLOXHSVRandomAug'), 5, 'needs RGB images of 8 bits'),
        (dict(type='RandomApply', transforms=[dict(type='Posterize')]), 4, 'needs RGB images of 8 bits'),
        (dict(type='Albu', transforms=[dict(type='RGBShift')]), 5, 'needs RGB images of 8 bits'),
        (dict(type='BioMedicalGaussianBlur'), 5, 'needs volumes'),
        (dict(type='CutOut', n_holes=1), 4, 'fills areas with three bands'),
        (dict(type='Pad', size_divisor=32), 5, 'is limited to four bands by OpenCV'),
        (dict(type='Normalize', mean=[0] * 3, std=[1] * 3), 3, 'exchanges the first and the third band'),
        (dict(type='Resize', scale=(9, 9), interpolation='area'), 5, 'is area, which OpenCV limits to four bands'),
    ],
)
def test_transform_for_rgb_is_refused(transform, bands, reason):
    cfg = Config.fromfile(DETECTION)
    cfg.model.backbone.in_channels = bands
    cfg.model.data_preprocessor.update(mean=[0.0] * bands, std=[1.0] * bands)
    check_bands(cfg, LOADERS)
    cfg.train_dataloader.dataset.pipeline.insert(2, transform)
    with pytest.raises(UserError, match=rf'^train_dataloader\.dataset\.pipeline\.2[.\w]*:? .*{reason}'):
        check_bands(cfg, LOADERS)
    check_bands(cfg, ['test'])


@pytest.mark.parametrize(
    ('base', 'changes', 'message'),
    [
        (
            RGB,
            {'model.backbone.in_channels': 5},
            'LoadImageFromFile returns 3 bands, but .*in_channels is 5; use mlp_dense',
        ),
        (
            DETECTION,
            {'model.data_preprocessor.mean': [1, 2, 3]},
            r'mean has 3 values, but .*in_channels is 5',
        ),
        (DETECTION, {'model.data_preprocessor.bgr_to_rgb': True}, 'keeps the order of the bands; set it to False'),
        (DETECTION, {'model.data_preprocessor.type': 'DetDataPreprocessor'}, 'set it to mlp_dense.DetDataPreprocessor'),
        (
            DETECTION,
            {'test_dataloader.dataset.pipeline.0.backend_args': 3},
            'LoadMultiBandImage has no argument backend_args; remove it',
        ),
        (
            SEGMENTATION,
            {'default_hooks.visualization': dict(type='SegVisualizationHook', draw=True)},
            'SegVisualizationHook reads images of 8 bits; set default_hooks.visualization.draw=False',
        ),
        (
            DETECTION,
            {'train_dataloader.dataset.pipeline': [dict(type='LoadImageFromFile')]},
            'Only some data sets use LoadMultiBandImage',
        ),
    ],
)
def test_contradiction_is_one_sentence(base, changes, message):
    cfg = Config.fromfile(base)
    cfg.merge_from_dict(changes)
    with pytest.raises(UserError, match=message):
        check_bands(cfg, LOADERS)


@pytest.mark.parametrize('base', [DETECTION, SEGMENTATION], ids=['detection', 'segmentation'])
def test_image_of_other_bands_is_named(base, tmp_path):
    model = load_model(base, None, 'cpu')
    np.save(tmp_path / 'four.npy', np.ones((32, 40, 4)))
    message = r'four\.npy has 4 bands, but the model takes 5; use images with 5 bands, or train with .*in_channels=4\.'
    with pytest.raises(UserError, match=message):
        model.predict(tmp_path / 'four.npy')
    with pytest.raises(UserError, match='Image 0 has 3 bands, but the model takes 5'):
        model.predict(np.zeros((32, 40, 3), np.uint8))


@pytest.mark.parametrize('bands', [1, 2, 4, 12])
def test_any_number_of_bands_is_resized_and_predicted(bands, tmp_path):
    cfg = Config.fromfile(SEGMENTATION)
    thin(cfg)
    cfg.model.backbone.in_channels = bands
    cfg.model.data_preprocessor.update(mean=[500.0] * bands, std=[300.0] * bands)
    cfg.test_dataloader.dataset.pipeline.insert(1, dict(type='Resize', scale=(48, 32), keep_ratio=True))
    image = np.random.default_rng(0).integers(0, 1000, (64, 96, bands), dtype=np.int32)
    np.save(tmp_path / 'image.npy', image[..., 0] if bands == 1 else image)
    model = load_model(cfg, None, 'cpu')
    results = [model.predict(source) for source in (image, tmp_path / 'image.npy')]
    assert torch.equal(*(result.seg_logits.data for result in results))
    assert results[0].pred_sem_seg.data.shape == (1, 64, 96) and results[0].img_shape == (32, 48)
    assert model.draw(image, results[0]).shape == (320, 480, 3)


def test_training_batch_of_other_bands_is_named():
    from mlp_dense.checks.band_agreement import guard_bands

    model = load_model(SEGMENTATION, None, 'cpu')
    guard_bands(model)
    sample = dict(img_path='folder/four.tif')
    with pytest.raises(UserError, match=r'folder/four\.tif has 4 bands, but the model takes 5'):
        model.data_preprocessor(dict(inputs=[torch.zeros(4, 8, 8)], data_samples=[sample]))


@pytest.mark.parametrize(
    ('name', 'image', 'lost'),
    [
        ('sensor.png', np.full((8, 8, 3), 4095, np.uint16), True),
        ('sensor.tif', np.full((8, 8), 16383, np.uint16), True),
        ('sensor_rgb.tif', np.full((8, 8, 3), 4095, np.uint16), True),
        ('full.png', np.full((8, 8, 3), 65535, np.uint16), False),
        ('dark.png', np.ones((8, 8), np.uint8), False),
        ('dark.tif', np.ones((8, 8, 3), np.uint8), False),
        ('dark.jpg', np.ones((8, 8, 3), np.uint8), False),
    ],
)
def test_bits_that_opencv_drops_are_reported(name, image, lost, tmp_path):
    cv2.imwrite(str(tmp_path / name), image)
    report = lost_by_opencv(tmp_path / name, cv2.imread(str(tmp_path / name)))
    assert report == ('16-bit images use mainly their lower 8 bits, which LoadImageFromFile drops' if lost else '')


def test_pages_that_opencv_drops_are_reported(tmp_path):
    tifffile = pytest.importorskip('tifffile', reason="tifffile of the extra 'data' is not installed")
    tifffile.imwrite(tmp_path / 'pages.tif', np.ones((5, 8, 9), np.uint8), photometric='minisblack')
    report = lost_by_opencv(tmp_path / 'pages.tif', np.ones((8, 9, 3), np.uint8))
    assert report == '5 pages, of which LoadImageFromFile reads the first'
