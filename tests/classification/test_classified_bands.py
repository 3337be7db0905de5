"""Classifiers of images of five bands, in folders of NumPy files."""

import json

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('timm', reason='timm is not installed: make test STACK=timm')
from mlp_dense.classification.data import PackClass
from mlp_dense.timm import VisionMLP
from support.tools import call


def test_packed_bands_keep_their_axes():
    for image, shape in ((np.ones((6, 7, 5), np.float32), (5, 6, 7)), (np.ones((6, 7), np.float32), (1, 6, 7))):
        inputs = PackClass()(dict(img=image[:, ::-1], img_path='a'))['inputs']
        assert inputs.shape == shape and inputs.dtype == torch.float32


@pytest.mark.slow
def test_classifier_of_five_bands_trains_tests_and_predicts(quick, tmp_path, capsys, one_process):
    random, data = np.random.default_rng(0), tmp_path / 'data'
    for number in range(12):
        for split in ('train', 'val'):
            folder = data / split / ('dry', 'wet')[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f'{number}.npy', random.integers(0, 9999, (32, 32, 5), dtype=np.uint16))
    flip = dict(type='RandomFlip', prob=0.5)
    load, pack = dict(type='mlp_dense.LoadMultiBandImage', show=(4, 3, 2)), dict(type='mlp_dense.PackClass')
    file = quick(
        **{
            'model.backbone.in_channels': 5,
            'model.head.num_classes': 2,
            'model.data_preprocessor': dict(mean=[5000.0] * 5, std=[2900.0] * 5, bgr_to_rgb=False),
            'train_dataloader.dataset.pipeline': [load, flip, pack],
        },
        **{f'{name}_dataloader.dataset.pipeline': [load, pack] for name in ('val', 'test')},
    )
    options = ['--data-root', data, '--work-dir', tmp_path / 'run']
    assert call('train', file, *options, '--seed', 0) == 0
    checkpoint = (tmp_path / 'run' / 'last_checkpoint').read_text()
    assert call('test', file, checkpoint, *options, '--report', tmp_path / 'report') == 0
    assert len(list((tmp_path / 'report' / 'pictures').iterdir())) == 12
    assert json.loads((tmp_path / 'report/results/run.json').read_text())['loading']['show'] == [4, 3, 2]
    assert call('predict', data / 'val', file, checkpoint, '--out-dir', tmp_path / 'out') == 0
    assert 'drawn: bands 4, 3, 2 as red' in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / 'out/vis/dry/0.png')).std() > 5
    settings = ['train_dataloader.dataset.pipeline.1.type=mlp_dense.TimmTransform', '--work-dir', tmp_path / 'refused']
    assert call('train', file, '--data-root', data, '--cfg-options', *settings) == 2
    assert 'pipeline.1: TimmTransform needs RGB images of 8 bits' in capsys.readouterr().err


def test_conversion_by_timm_is_logged(family, save, log_lines):
    arch = dict(depths=(1, 1, 1, 1), dims=(16, 32, 48, 64))
    path = save(VisionMLP(family, arch).state_dict())
    VisionMLP(family, arch, in_chans=5).load_pretrained(path)
    assert 'The first convolution is converted from 3 to 5 channels by timm.' in log_lines
