"""Data sets for classification (folders, ImageNet, archives), timm's augmentation and repeated augmentation."""

import io
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from PIL import Image

timm = pytest.importorskip('timm', reason='timm is not installed: make test STACK=timm')
from mmengine.model import ImgDataPreprocessor  # noqa: E402
from timm.data import create_transform  # noqa: E402

from mlp_dense.classification.data import (  # noqa: E402
    ClassFolders,
    ImageArchive,
    ImageNet,
    LoadImage,
    RepeatedAugmentation,
    TimmTransform,
)
from mlp_dense.datasets.shapes import CLASSES  # noqa: E402
from mlp_dense.errors import UnreadableError, UserError  # noqa: E402
from support.tools import call  # noqa: E402

PIPELINE = [dict(type='mlp_dense.LoadImage'), dict(type='mlp_dense.TimmTransform', input_size=32)]
PIPELINE.append(dict(type='mlp_dense.PackClass'))


def random_image(seed: int = 0, size: tuple[int, int] = (40, 60)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def test_folders_are_classes(classes):
    data = ClassFolders(data_root=str(classes), data_prefix=dict(img_path='val'), pipeline=PIPELINE)
    assert data.metainfo['classes'] == sorted(CLASSES) and len(data) == 10
    for i in range(len(data)):
        item = data[i]
        name = data.metainfo['classes'][item['data_samples'].gt_class.labels.item()]
        assert f'/{name}/' in item['data_samples'].img_path
        assert item['inputs'].shape == (3, 32, 32) and item['inputs'].dtype == torch.uint8
    assert data[0]['data_samples'].ori_shape == (32, 32)


def test_metainfo_sets_the_order_of_the_classes(classes):
    names = list(reversed(sorted(CLASSES)))
    data = ClassFolders(data_root=str(classes), data_prefix=dict(img_path='val'), metainfo=dict(classes=names))
    assert data.metainfo['classes'] == names
    assert {names[info['gt_label']] for info in map(data.get_data_info, range(10))} == set(CLASSES)
    assert all(f'/{names[info["gt_label"]]}/' in info['img_path'] for info in map(data.get_data_info, range(10)))
    more = dict(classes=[*names, 'hexagon'])
    with pytest.raises(UserError, match='has no folder hexagon; create one for each of the 6 classes'):
        ClassFolders(data_root=str(classes), data_prefix=dict(img_path='val'), metainfo=more)


def test_files_below_a_class_are_found(tmp_path, log_lines):
    for name in (
        'cat/a.png',
        'cat/persian/b.webp',
        'cat/dog/c.jpg',
        'dog/d.BMP',
        'dog/.e.png',
        '.cache/f.png',
        '__MACOSX/g.png',
        'cat/__MACOSX/h.png',
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        random_image().save(tmp_path / name)
    (tmp_path / 'dog' / 'notes.txt').write_text('')
    (tmp_path / 'emu').mkdir()
    data = ClassFolders(data_prefix=dict(img_path=str(tmp_path)))
    assert data.metainfo['classes'] == ['cat', 'dog', 'emu']
    images = map(data.get_data_info, range(4))
    labels = {image['img_path'].removeprefix(f'{tmp_path}/'): image['gt_label'] for image in images}
    assert labels == {'cat/a.png': 0, 'cat/persian/b.webp': 0, 'cat/dog/c.jpg': 0, 'dog/d.BMP': 1} and len(data) == 4
    assert log_lines == [f'{tmp_path} has no image of emu.']


def test_different_names_of_classes_are_an_error(quick, classes, tmp_path, capsys):
    root = tmp_path / 'data'
    shutil.copytree(classes, root)
    first = sorted(CLASSES)[0]
    (root / 'val' / first).rename(root / 'val' / 'a')
    assert call('train', quick(), '--work-dir', tmp_path / 'run', '--data-root', root) == 2
    assert f"'{first}' in the training data and 'a' in the val data; set the same classes" in capsys.readouterr().err


def test_imagenet_maps_synsets_to_names(tmp_path):
    synsets = timm.data.ImageNetInfo().label_names()
    assert len(synsets) == 1000 and synsets[0] == 'n01440764'
    names = ImageNet.read_meta(ConfigDict())['classes']
    assert len(set(names)) == 1000 and names[0] == 'tench' and names[-1] == 'toilet tissue'
    for synset in synsets:
        (tmp_path / 'val' / synset).mkdir(parents=True)
    random_image().save(tmp_path / 'val' / synsets[7] / 'ILSVRC2012_val_00000001.JPEG')
    data = ImageNet(data_root=str(tmp_path), data_prefix=dict(img_path='val'))
    assert data.get_data_info(0)['gt_label'] == 7 and data.metainfo['classes'][7] == names[7]
    (tmp_path / 'val' / synsets[3]).rmdir()
    with pytest.raises(UserError, match=f'has no folder {synsets[3]}'):
        ImageNet(data_root=str(tmp_path), data_prefix=dict(img_path='val'))


def test_archive_contains_images_and_labels(tmp_path):
    files = []
    for seed in range(3):
        buffer = io.BytesIO()
        random_image(seed).save(buffer, 'JPEG')
        files.append(buffer.getvalue())
    offsets = np.cumsum([0, *map(len, files)])
    data = np.frombuffer(b''.join(files), np.uint8)
    np.savez(tmp_path / 'train.npz', data=data, offsets=offsets, labels=np.array([1, 0, 1]))
    (tmp_path / 'classes.txt').write_text('n1\tcat\nn2\tgreat dog\n')
    archive = ImageArchive(data_root=str(tmp_path), ann_file='train.npz', pipeline=PIPELINE[:1])
    assert archive.metainfo['classes'] == ['cat', 'great dog']
    assert [archive.get_data_info(i)['gt_label'] for i in range(3)] == [1, 0, 1]
    for i, file in enumerate(files):
        assert np.array_equal(archive[i]['img'], Image.open(io.BytesIO(file)))
    assert archive.get_data_info(2)['img_path'].endswith('train.npz/000002')
    (tmp_path / 'classes.txt').write_text('n1\tcrane\nn2\tcrane\n')
    data_set = ImageArchive(data_root=str(tmp_path), ann_file='train.npz')
    assert data_set.metainfo['classes'] == ['crane (n1)', 'crane (n2)']
    (tmp_path / 'classes.txt').unlink()
    with pytest.raises(UserError, match='label 1, but there are 0 classes: write classes'):
        ImageArchive(data_root=str(tmp_path), ann_file='train.npz')


@pytest.mark.parametrize('content', [b'', b'no image', 'truncated'])
def test_unreadable_image_is_an_error(tmp_path, content):
    file = tmp_path / 'x.jpg'
    if content == 'truncated':
        random_image().save(file)
        content = file.read_bytes()[:400]
    file.write_bytes(content)
    with pytest.raises(UnreadableError, match=r'x.jpg is missing or not a readable image; replace or remove it\.'):
        LoadImage()(dict(img_path=str(file)))


def test_sixteen_bits_are_reduced_to_eight(tmp_path):
    values = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
    cv2.imwrite(str(tmp_path / 'x.png'), values)
    pixels = np.asarray(LoadImage()(dict(img_path=str(tmp_path / 'x.png')))['img'])
    assert np.array_equal(pixels, cv2.imread(str(tmp_path / 'x.png')))
    Image.fromarray(values.astype(np.float32) / 65535).save(tmp_path / 'x.tiff')
    with pytest.raises(UnreadableError, match='has 32 bits per pixel; save images with 8 or 16'):
        LoadImage()(dict(img_path=str(tmp_path / 'x.tiff')))


@pytest.mark.parametrize('interpolation', ['bicubic', 'bilinear'])
def test_transformed_images_equal_those_of_timm(interpolation):
    """The transform resizes and crops, the model normalizes."""
    settings = dict(input_size=24, crop_pct=0.875, interpolation=interpolation)
    expected = create_transform(**settings)(random_image())
    normalize = ImgDataPreprocessor([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], bgr_to_rgb=True)
    for image in (random_image(), np.asarray(random_image())[..., ::-1]):  # Pillow and OpenCV
        actual = normalize(dict(inputs=[TimmTransform(**settings)(dict(img=image))['inputs']]))['inputs'][0]
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize('processes', [1, 2, 3])
def test_repeated_augmentation_samples_images_three_times(processes, monkeypatch):
    """An epoch has a third of the images, as in timm's sampler, and the next epoch has others."""
    data, epochs = range(30), []
    for epoch in range(2):
        indices = []
        for rank in range(processes):
            monkeypatch.setattr('mlp_dense.classification.data.get_dist_info', lambda rank=rank: (rank, processes))
            sampler = RepeatedAugmentation(data, seed=5)
            sampler.set_epoch(epoch)
            indices += sampler
            assert len(list(sampler)) == len(sampler) == 30 // processes
        assert len(set(indices)) == len(indices) == 30  # every copy has its own index
        images = [index % 30 for index in indices]
        assert sorted(map(images.count, set(images))) == [3] * 10
        epochs.append(set(images))
    assert epochs[0] != epochs[1]
    other = RepeatedAugmentation(data, seed=6)
    assert {index % 30 for index in other} != epochs[0] or processes > 1


def test_folders_that_do_not_fit_the_head_are_an_error(quick, classes, tmp_path, capsys):
    file = quick(**{'model.head.num_classes': 6})
    assert call('train', file, '--work-dir', tmp_path / 'run') == 2
    error = 'model.head.num_classes is 6, but the train data (mlp_dense.ClassFolders) have 5 classes ('
    assert error in capsys.readouterr().err
    assert call('train', quick(), '--work-dir', tmp_path / 'run', '--data-root', tmp_path) == 2
    assert 'does not exist, and the train data of this config are read from there' in capsys.readouterr().err


@pytest.mark.parametrize(
    'batch_size, error',
    [
        (64, 'data have 20 images, too few for a batch of 64 in 1 process: lower train_dataloader.batch_size'),
        (3, 'Mixup needs an even number of images, not 3: change batch_size.'),
    ],
)
def test_unsuitable_batch_size_is_an_error(quick, tmp_path, capsys, batch_size, error):
    file = quick(**{'train_dataloader.batch_size': batch_size, 'train_dataloader.drop_last': True})
    assert call('train', file, '--work-dir', tmp_path / 'run') == 2
    assert error in capsys.readouterr().err
