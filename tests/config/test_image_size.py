"""--img-scale and --crop-size change every size of a config."""

from pathlib import Path

import pytest
from mmengine.config import Config, ConfigDict

from mlp_dense.config.config_file import enter_scope, setting
from mlp_dense.errors import UserError
from mlp_dense.training.runner import DenseRunner
from mlp_dense.training.setup import shrink
from support.configs import DETECTION, SEGMENTATION, config

ALL = ('train', 'val', 'test')
COCO = config('detection/hire_mlp_mask_rcnn_coco')
MULTISCALE = config('detection/as_mlp_small_mask_rcnn_3x_coco')
ADE20K = config('segmentation/hire_mlp_upernet_ade20k')
CAMVID = config('segmentation/hire_mlp_tiny_upernet_camvid')
CLASSIFIER = config('classification/hire_mlp_tiny_imagenet')


def shrunk(file: str, loaders=ALL, change=lambda cfg: None, **options) -> tuple[Config, list[str]]:
    cfg = Config.fromfile(file)
    change(cfg)
    return cfg, shrink(cfg, loaders, **options)


def test_img_scale_reports_every_change():
    cfg, lines = shrunk(COCO, img_scale=(320, 192))
    assert lines == [
        f'{path}.scale: (1333, 800) -> (320, 192)'
        for path in (
            'train_dataloader.dataset.pipeline.2',
            'val_dataloader.dataset.pipeline.1',
            'test_dataloader.dataset.pipeline.1',
            'tta_pipeline.1.transforms.0.0',
        )
    ]
    assert setting(cfg, 'train_dataloader.dataset.pipeline.2.scale') == (320, 192)
    assert shrink(cfg, ALL, img_scale=(320, 192)) == [], 'the config has that size already'


def test_multiple_scales_change_in_proportion():
    cfg, _ = shrunk(MULTISCALE, img_scale=(667, 400))  # half
    (first,), (second, crop, third) = cfg.train_dataloader.dataset.pipeline[3].transforms
    assert first.scales == third.scales == [(short // 2, 667) for short in range(480, 801, 32)]
    assert second.scales == [(200, 2102), (250, 2102), (300, 2102)] and crop.crop_size == (192, 300)


def test_crops_and_padding_change_in_proportion():
    cfg, _ = shrunk(ADE20K, img_scale=(512, 128))
    assert cfg.train_dataloader.dataset.pipeline[2].scale == (512, 128)
    assert cfg.train_dataloader.dataset.pipeline[3].crop_size == (128, 128) == cfg.model.data_preprocessor.size
    assert [resize.scale for resize in cfg.tta_pipeline[1].transforms[0]][::5] == [(256, 64), (896, 224)]
    cfg, lines = shrunk(ADE20K, img_scale=(512, 128), crop_size=(64, 96))
    assert cfg.train_dataloader.dataset.pipeline[3].crop_size == (64, 96) == cfg.model.data_preprocessor.size
    cfg, lines = shrunk(ADE20K, crop_size=(64, 96))
    assert lines == [
        'train_dataloader.dataset.pipeline.3.crop_size: (512, 512) -> (64, 96)',
        'model.data_preprocessor.size: (512, 512) -> (64, 96)',
    ]


def test_crop_size_changes_sliding_windows():
    def slide(cfg):
        cfg.model.test_cfg = dict(mode='slide', crop_size=(512, 512), stride=(341, 256))

    cfg, _ = shrunk(ADE20K, ('test',), slide, crop_size=(64, 128))
    assert cfg.model.test_cfg == dict(mode='slide', crop_size=(64, 128), stride=(43, 64))
    assert cfg.train_dataloader.dataset.pipeline[3].crop_size == (512, 512), 'a test changes the test data only'
    cfg, _ = shrunk(ADE20K, ('test',), slide, img_scale=(1024, 256))
    assert cfg.model.test_cfg == dict(mode='slide', crop_size=(256, 256), stride=(170, 128))


def test_img_scale_adds_a_resize():
    cfg, _ = shrunk(CAMVID, img_scale=(240, 180))
    resize = dict(type='Resize', scale=(240, 180), keep_ratio=True)
    assert cfg.train_dataloader.dataset.pipeline[2].scale == (240, 180)
    assert cfg.train_dataloader.dataset.pipeline[3].crop_size == (180, 240)
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        loading, resizing, labels = loader.dataset.pipeline[:3]
        assert (loading.type, resizing, labels.type) == ('LoadImageFromFile', resize, 'LoadAnnotations')
    assert [resize.scale for resize in cfg.tta_pipeline[1].transforms[0]][1:3] == [(180, 135), (240, 180)]
    cfg, lines = shrunk(SEGMENTATION, img_scale=[64])
    assert cfg.train_dataloader.dataset.pipeline[2] == dict(type='Resize', scale=(64, 64), keep_ratio=True)
    assert any(line.startswith('train_dataloader.dataset.pipeline.2: new, ') for line in lines)


def test_img_scale_changes_wrapped_data_sets():
    def wrap(cfg):
        inner = cfg.train_dataloader.dataset
        inner.pipeline = inner.pipeline[:2]
        transforms = [
            dict(type='RandomResize', scale=[(1333, 640), (1333, 800)], keep_ratio=True),
            dict(type='RandomCrop', crop_type='relative_range', crop_size=(0.5, 0.5)),
            dict(type='Pad', size=(1333, 800)),
        ]
        both = dict(type='ConcatDataset', datasets=[inner])
        cfg.train_dataloader.dataset = ConfigDict(type='MultiImageMixDataset', dataset=both, pipeline=transforms)

    cfg, lines = shrunk(COCO, change=wrap, img_scale=(667, 400))
    resize, crop, pad = cfg.train_dataloader.dataset.pipeline
    assert resize.scale == [(667, 320), (667, 400)]
    assert crop.crop_size == (0.5, 0.5) and pad.size == (666, 400)
    assert len(cfg.train_dataloader.dataset.dataset.datasets[0].pipeline) == 2, 'images are resized once'
    assert 'train_dataloader.dataset.pipeline.2.size: (1333, 800) -> (666, 400)' in lines


@pytest.mark.parametrize(
    ('file', 'options', 'sentence'),
    [
        (COCO, dict(img_scale=(192, 320)), '--img-scale 192 320: pass the long and the short side, or one number'),
        (COCO, dict(img_scale=(0,)), 'of 1 pixel or more.'),
        (COCO, dict(img_scale=(3, 2, 1)), '--img-scale 3 2 1: pass'),
        (COCO, dict(crop_size=(64, 64)), r'--crop-size: the training of .*coco.py has no crop of a fixed size'),
        (ADE20K, dict(crop_size=(0, 64)), '--crop-size 0 64: pass a height and a width of 1 pixel or more.'),
        (CLASSIFIER, dict(img_scale=(64, 48)), 'are square; pass one number.'),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else '',
)
def test_impossible_option_is_refused(file, options, sentence):
    with pytest.raises(UserError, match=sentence):
        shrunk(file, **options)


@pytest.mark.parametrize(
    'transform', [dict(type='FixShapeResize', width=64, height=64), dict(type='mmdet.Mosaic', img_scale=(800, 800))]
)
def test_unknown_transform_is_refused(transform):
    def change(cfg):
        cfg.train_dataloader.dataset.pipeline[2] = ConfigDict(transform)

    name = transform['type'].rpartition('.')[2]
    with pytest.raises(UserError, match=rf'cannot change train_dataloader\.dataset\.pipeline\.2, a {name}; set --cfg'):
        shrunk(COCO, change=change, img_scale=(320, 192))


def test_pipeline_that_loads_no_image_is_refused():
    def change(cfg):
        cfg.train_dataloader.dataset.pipeline = []

    with pytest.raises(UserError, match=r'the train pipeline of .* has no transform that loads an image'):
        shrunk(DETECTION, change=change, img_scale=(320, 192))


def test_workers_and_batch_size_change_their_loaders():
    cfg, lines = shrunk(COCO, batch_size=3, workers=0)
    assert cfg.train_dataloader.batch_size == 3 and cfg.test_dataloader.batch_size == 1
    for name in ALL:
        loader = cfg[f'{name}_dataloader']
        assert loader.num_workers == 0 and loader.persistent_workers is None
        assert f'{name}_dataloader.num_workers: 2 -> 0' in lines
    cfg, lines = shrunk(COCO, ('test',), batch_size=3, workers=1)
    assert lines == ['test_dataloader.batch_size: 1 -> 3', 'test_dataloader.num_workers: 2 -> 1']


@pytest.mark.parametrize(
    ('file', 'data', 'scale'),
    [(MULTISCALE, 'coco_tiny', (160, 96)), (CAMVID, 'camvid', (120, 90))],
    ids=['coco', 'camvid'],
)
def test_loaded_images_have_the_requested_size(file, data, scale, shared):
    cfg = Config.fromfile(file)
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(Path(shared, 'data', data))
    shrink(cfg, ALL, img_scale=scale, workers=0)
    enter_scope(cfg)
    for name in ('train', 'test'):
        item = DenseRunner.build_dataloader(cfg[f'{name}_dataloader']).dataset[0]
        height, width = item['inputs'].shape[1:]
        assert max(height, width) <= scale[0] and min(height, width) <= scale[1]
        assert max(height, width) > scale[0] / 3
    if data == 'camvid':
        assert item['data_samples'].gt_sem_seg.shape == (360, 480), 'measured at the full size'
