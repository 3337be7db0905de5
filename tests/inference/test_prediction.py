"""Predictions on images and videos from the command line: files, messages and errors."""

import faulthandler
import itertools
import json
import os
import shutil
import signal
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from mlp_dense import inference, load_model
from mlp_dense.errors import UserError
from mlp_dense.tasks import coco_category_ids
from support.configs import DETECTION, SEGMENTATION, config
from support.tools import call
from support.trainings import start, wait


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """Return checkpoints with random weights, which detect many objects with low scores."""
    folder, files = tmp_path_factory.mktemp('weights'), {}
    for file in (DETECTION, SEGMENTATION):
        torch.manual_seed(0)
        files[file] = folder / f'{Path(file).stem}.pth'
        torch.save(dict(state_dict=load_model(file, None, 'cpu').state_dict(), meta={}), files[file])
    return files


@pytest.fixture
def run(checkpoints, tmp_path, capsys):
    """Predict with a config; return the exit status, the output and the folder of the results."""

    def predict(config: str, source: Path, *options) -> tuple[int, str, Path]:
        out = tmp_path / f'out{len(list(tmp_path.glob("out*")))}'
        status = call('predict', source, config, checkpoints[config], '--out-dir', out, '--device', 'cpu', *options)
        return status, ''.join(capsys.readouterr()), out

    return predict


def written(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob('*') if file.is_file())


def test_detector_writes_coco_results_for_a_folder(run, checkpoints, shapes):
    status, text, out = run(DETECTION, shapes / 'val', '--score-thr', 0, '--batch-size', 3)
    assert status == 0 and '8 images: results are in' in text
    assert written(out) == ['images.json', 'predictions.json', *(f'vis/{i:06}.png' for i in range(8))]
    assert cv2.imread(str(out / 'vis' / '000003.png')).shape == (384, 384, 3), 'enlarged'
    truth = COCO(str(shapes / 'annotations' / 'instances_val.json'))
    for coco in (COCO(str(out / 'images.json')), truth):
        loaded = coco.loadRes(str(out / 'predictions.json'))
        assert set(loaded.getImgIds()) <= set(truth.getImgIds())
        assert loaded.loadCats(loaded.getCatIds()) == coco.loadCats(coco.getCatIds())
    assert [c['name'] for c in COCO(str(out / 'images.json')).loadCats([1, 5])] == ['disc', 'cross']
    results = json.loads((out / 'predictions.json').read_text())
    assert len(results) > 8 and all(0 <= result['score'] <= 1 for result in results)
    assert rle.decode(results[0]['segmentation']).shape == (96, 96)
    model = load_model(DETECTION, checkpoints[DETECTION], 'cpu')
    labels = model.predict(shapes / 'val' / '000000.jpg').pred_instances.labels
    categories = [result['category_id'] for result in results if result['image_id'] == 0]
    assert sorted(categories) == sorted((labels + 1).tolist()) != []


@pytest.mark.parametrize('options', [['--batch-size', 4], ['--fuse']], ids=str)
def test_results_do_not_depend_on_batch_size_or_fusion(run, shapes, options):
    pairs = [run(DETECTION, shapes / 'val', '--score-thr', 0, *more)[2] for more in ([], options)]
    results = [json.loads((out / 'predictions.json').read_text()) for out in pairs]
    assert len(results[0]) == len(results[1])
    assert np.allclose([r['score'] for r in results[0]], [r['score'] for r in results[1]], atol=1e-4)


def test_score_threshold_applies_to_results_and_drawing(run, shapes):
    _, _, out = run(DETECTION, shapes / 'val' / '000002.jpg', '--score-thr', 1)
    assert json.loads((out / 'predictions.json').read_text()) == []
    image = cv2.imread(str(shapes / 'val' / '000002.jpg')).repeat(4, 0).repeat(4, 1)
    assert (cv2.imread(str(out / 'vis' / '000002.png')) == image).all(), 'nothing is drawn'
    images = json.loads((out / 'images.json').read_text())['images']
    assert images == [dict(id=2, file_name='000002.jpg', height=96, width=96)]


def test_segmentor_writes_label_maps_for_a_folder(run, shapes):
    status, _, out = run(SEGMENTATION, shapes / 'val', '--batch-size', 8)
    assert status == 0
    names = [f'{i:06}.png' for i in range(8)]
    assert written(out) == ['images.json', *(f'labels/{name}' for name in names), *(f'vis/{name}' for name in names)]
    labels = cv2.imread(str(out / 'labels' / names[0]), cv2.IMREAD_UNCHANGED)
    assert labels.shape == (96, 96) and labels.dtype == np.uint8
    categories = json.loads((out / 'images.json').read_text())['categories']
    assert categories[0] == dict(id=0, name='background') and set(np.unique(labels)) <= {c['id'] for c in categories}


@pytest.mark.parametrize('config', [DETECTION, SEGMENTATION])
def test_images_of_all_formats_are_predicted(config, run, shapes, tmp_path):
    """Images are read as in training; equal names in several folders get different files."""
    folder = tmp_path / 'in'
    (folder / 'sub').mkdir(parents=True)
    image = cv2.imread(str(shapes / 'val' / '000000.jpg'))[:64]
    arrays = {'a.png': image, 'a.bmp': image, 'sub/a.png': image[:, :80], 'gray.png': image[..., 0]}
    arrays |= {'rgba.png': cv2.cvtColor(image, cv2.COLOR_BGR2BGRA), 'deep.png': image.astype(np.uint16) * 257}
    arrays |= {'pixel.png': image[:1, :1], 'line.png': image[:1]}
    for name, array in arrays.items():
        cv2.imwrite(str(folder / name), array)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    Image.fromarray(image).save(folder / 'turned.jpg', exif=exif)
    (folder / 'empty.jpg').write_bytes(b'')
    (folder / 'broken.jpg').write_bytes((folder / 'turned.jpg').read_bytes()[:80])
    (folder / 'notes.txt').write_text('not an image')
    status, text, out = run(config, folder, '--batch-size', 4)
    assert status == 1 and '2 images cannot be decoded: broken.jpg, empty.jpg' in text
    images = {image['file_name']: image for image in json.loads((out / 'images.json').read_text())['images']}
    assert len(images) == 9 and len({image['id'] for image in images.values()}) == 9
    assert (images['turned.jpg']['height'], images['turned.jpg']['width']) == (96, 64)
    for folder_name in ['vis'] if config == DETECTION else ['vis', 'labels']:
        assert {f'{folder_name}/{name}.png' for name in images} <= set(written(out))
    if config == SEGMENTATION:
        maps = {name: cv2.imread(str(out / 'labels' / f'{name}.png'), cv2.IMREAD_UNCHANGED) for name in images}
        assert all(maps[name].shape == (image['height'], image['width']) for name, image in images.items())
        for name in ('a.bmp', 'rgba.png', 'deep.png'):
            assert (maps[name] == maps['a.png']).all(), name


@pytest.fixture(scope='module')
def video(shapes, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp('video') / 'clip.avi'
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*'MJPG'), 5, (96, 96))
    for i in range(5):
        writer.write(cv2.imread(str(shapes / 'val' / f'{i:06}.jpg')))
    writer.release()
    return file


@pytest.mark.parametrize('config', [DETECTION, SEGMENTATION])
def test_video_gets_a_drawn_video_and_results(config, run, video):
    status, text, out = run(config, video, '--batch-size', 2, '--score-thr', 0.1)
    assert status == 0 and '5 frames: results are in' in text
    drawn = cv2.VideoCapture(str(out / 'clip.mp4'))
    assert [drawn.get(key) for key in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS)] == [5, 5]
    assert drawn.read()[1].shape == (384, 384, 3)
    images = json.loads((out / 'images.json').read_text())['images']
    assert images[3] == dict(id=3, file_name='clip.avi', frame=3, height=96, width=96)
    more = ['predictions.json'] if config == DETECTION else [f'labels/{i:06}.png' for i in range(5)]
    assert written(out) == sorted(['clip.mp4', 'images.json', *more])


@pytest.mark.parametrize('ending', ['SIGINT', 'SIGSEGV', 'SIGKILL'])
def test_prediction_that_ends_at_an_image_keeps_the_others(ending, checkpoints, shapes, tmp_path):
    """The results are those of an uninterrupted prediction, and valid."""
    arguments = [DETECTION, checkpoints[DETECTION], '--device', 'cpu', '--score-thr', 0]
    for i in range(2):
        (tmp_path / 'in').mkdir(exist_ok=True)
        shutil.copy(shapes / 'val' / f'00000{i}.jpg', tmp_path / 'in')
    assert call('predict', tmp_path / 'in', *arguments, '--out-dir', tmp_path / 'complete') == 0

    def stop_at_the_third():
        def draw(*args, **kwargs):
            if next(numbers) == 2:
                faulthandler.disable()  # the crash is intended
                signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
                signal.raise_signal(getattr(signal, ending))
            return draw_labels(*args, **kwargs)

        numbers, draw_labels = itertools.count(), inference.draw_labels
        patch.object(inference, 'draw_labels', draw).start()

    out, log = tmp_path / 'out', tmp_path / 'log'
    status = wait(
        start(shapes / 'val', *arguments, '--out-dir', out, tool='predict', log=log, prepare=stop_at_the_third)
    )
    assert status == (71 if ending == 'SIGINT' else -getattr(signal, ending)), log.read_text()
    for name in ('images.json', 'predictions.json'):
        assert json.loads((out / name).read_text()) == json.loads((tmp_path / 'complete' / name).read_text()) != []
    assert len(COCO(str(out / 'images.json')).loadRes(str(out / 'predictions.json')).getImgIds()) == 2


@pytest.mark.parametrize('config', [DETECTION, SEGMENTATION])
def test_names_that_are_not_utf8_are_predicted(config, run, shapes, tmp_path):
    folder, name = tmp_path / 'in', os.fsdecode(b'sub/b\xff')
    (folder / 'sub').mkdir(parents=True)
    shutil.copy(shapes / 'val' / '000000.jpg', folder / 'a.jpg')
    shutil.copy(shapes / 'val' / '000001.jpg', folder / f'{name}.jpg')
    (folder / f'{name}.webp').write_bytes(b'')
    status, text, out = run(config, folder)
    assert status == 1 and r'1 image cannot be decoded: sub/b\udcff.webp' in text
    images = json.loads((out / 'images.json').read_text())['images']
    assert [image['file_name'] for image in images] == ['a.jpg', f'{name}.jpg']
    for sub in ('vis', 'labels')[: 1 + (config == SEGMENTATION)]:
        assert (out / sub / f'{name}.jpg.png').is_file()


def test_video_whose_name_is_not_utf8_is_refused(video, tmp_path):
    """Such a name crashes OpenCV."""
    file = tmp_path / os.fsdecode(b'\xff.avi')
    shutil.copy(video, file)
    with pytest.raises(UserError, match='OpenCV cannot open a video whose path is not UTF-8; rename it'):
        inference.ImageSource(file)


def test_category_ids_are_those_of_the_data(shapes):
    from mmdet.datasets import CocoDataset

    dataset = Config.fromfile(config('detection/hire_mlp_mask_rcnn_coco')).test_dataloader.dataset
    ids = coco_category_ids(dataset, CocoDataset.METAINFO['classes'])
    assert len(ids) == 80 and (ids[0], ids[11], ids[79]) == (1, 13, 90)
    dataset = Config.fromfile(DETECTION).test_dataloader.dataset
    dataset.data_root = str(shapes)
    assert coco_category_ids(dataset, ('cross', 'disc')) == [5, 1]
    assert coco_category_ids(dataset, ('other', 'disc')) == [1, 2]


def test_unusable_input_is_refused(run, checkpoints, shapes, tmp_path, capsys):
    (tmp_path / 'nothing').mkdir()
    (tmp_path / 'notes.txt').write_text('not a video')
    cases = (('absent', 'does not exist'), ('nothing', 'contains no images'), ('notes.txt', 'nor a video'))
    for source, sentence in cases:
        with pytest.raises(UserError, match=sentence):
            inference.ImageSource(tmp_path / source)
    image = shapes / 'val' / '000000.jpg'
    for options, sentence in (
        (['--batch-size', 0], 'set --batch-size to 1 or more'),
        (['--score-thr', 1.5], 'from 0 to 1'),
        (['--out-dir', image], 'cannot be written'),
        (['--out-dir', shapes], 'is not empty'),
        (['--device', 'toaster'], 'device toaster is unknown or absent'),
        (['--cfg-options', 'a'], 'KEY=VALUE'),
    ):
        status, text, _ = run(DETECTION, image, *options)
        assert status == 2 and sentence in text
    usable = (image, DETECTION, checkpoints[DETECTION])
    for i, absent in enumerate((tmp_path / 'absent', 'configs/absent.py', tmp_path / 'absent.pth')):
        assert call('predict', *usable[:i], absent, *usable[i + 1 :], '--out-dir', tmp_path / 'x') == 2
        assert 'does not exist' in capsys.readouterr().err
        assert not list(tmp_path.glob('x/*'))
