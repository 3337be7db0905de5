"""Training and validation accept unusual but valid images and labels, or refuse them in one sentence."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from PIL import Image

from mlp_dense.checks.data_config import copy_before_packing
from support.configs import DETECTION, SEGMENTATION

BOTH = pytest.mark.parametrize('base', [DETECTION, SEGMENTATION], ids=['detection', 'segmentation'])


def rewrite(file: Path, encoding: str) -> None:
    image = Image.open(file).convert('RGB')
    if encoding == 'grey':
        image.convert('L').save(file)
    elif encoding == 'CMYK':
        image.convert('CMYK').save(file)
    elif encoding == '16 bits':  # a PNG, whatever its name
        cv2.imwrite(str(file.with_suffix('.png')), np.asarray(image).astype(np.uint16) * 256)
        file.with_suffix('.png').rename(file)
    elif encoding == 'rotated by EXIF':
        exif = image.getexif()
        exif[0x0112] = 3  # upside down, of the same size
        image.save(file, exif=exif)


@pytest.mark.slow
@BOTH
def test_unusual_encodings_are_accepted(data, train, base):
    """A grey, a CMYK, a 16-bit and an EXIF-rotated image in every split."""
    for split in ('train', 'val'):
        for i, file in enumerate(sorted((data / split).iterdir())):
            rewrite(file, ['grey', 'CMYK', '16 bits', 'rotated by EXIF'][i % 4])
    status, output, errors = train(base)
    assert status == 0, errors
    assert 'Problems in the data' not in output


@pytest.mark.slow
def test_unusual_objects_are_accepted(change_annotations, train):
    """Crowds, boxes of one pixel, and images without any object."""

    def change(content: dict) -> None:
        for i, annotation in enumerate(content['annotations']):
            x, y = annotation['bbox'][:2]
            if i % 3 == 0:
                annotation['iscrowd'] = 1
                annotation['segmentation'] = dict(size=[96, 96], counts=[96 * 50, 200, 96 * 46 - 200])
            elif i % 3 == 1:
                annotation.update(bbox=[x, y, 1, 1], segmentation=[[x, y, x + 1, y, x + 1, y + 1]], area=1)
        content['annotations'] = [a for a in content['annotations'] if a['image_id'] % 2]

    for split in ('train', 'val'):
        change_annotations(split, change)
    status, _, errors = train(DETECTION)
    assert status == 0, errors


@pytest.mark.slow
def test_batches_without_objects_are_accepted(change_annotations, train):
    change_annotations('train', lambda content: content.update(annotations=content['annotations'][:1]))
    status, _, errors = train(DETECTION, **{'train_dataloader.dataset.filter_cfg': None})
    assert status == 0, errors


@pytest.mark.slow
@pytest.mark.parametrize('split', ['train', 'val'])
@BOTH
def test_data_without_images_are_refused(data, change_annotations, train, base, split):
    change_annotations(split, lambda content: content.update(images=[], annotations=[]))
    for file in (data / split).iterdir():
        file.unlink()
    status, _, errors = train(base)
    assert status == 2 and 'No image matches these settings' in errors


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:Mean of empty slice:RuntimeWarning')  # no class has a pixel
def test_label_maps_of_ignored_pixels_are_accepted(data, train):
    """The loss is 0 and the metrics are undefined. If all label maps are so, the training is refused."""
    for file in [*data.glob('labels/val/*.png'), *sorted(data.glob('labels/train/*.png'))[1:]]:
        cv2.imwrite(str(file), np.full((96, 96), 255, np.uint8))
    status, _, errors = train(SEGMENTATION)
    assert status == 0, errors


@pytest.mark.slow
@pytest.mark.parametrize('size', [(1, 1), (1, 2000), (600, 800)], ids='{0[0]}x{0[1]}'.format)
@BOTH
def test_unusual_image_sizes_are_accepted(data, change_annotations, train, base, size):
    """One image in each split has the size (height, width), a large one in training only, to save time."""
    for split in ('train', 'val') if size[0] < 600 else ('train',):
        file = min((data / split).iterdir())
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(file)
        labels = data / 'labels' / split / file.with_suffix('.png').name
        cv2.imwrite(str(labels), np.ones(size, np.uint8))

        def change(content: dict) -> None:
            image = min(content['images'], key=lambda image: image['file_name'])
            image.update(height=size[0], width=size[1])
            for annotation in content['annotations']:
                if annotation['image_id'] == image['id']:
                    annotation.update(bbox=[0, 0, 1, 1], segmentation=[[0, 0, 1, 0, 1, 1]], area=1)

        change_annotations(split, change)
    status, _, errors = train(base, '--seed', 0, **{'val_dataloader.batch_size': 1})
    if base == SEGMENTATION and size == (1, 1):  # mmsegmentation squeezes its label map to a number
        assert status == 2 and '000000.jpg: LoadAnnotations fails' in errors
    else:
        assert status == 0, errors


@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal'])
@pytest.mark.parametrize('size', [(1, 9), (9, 1), (3, 3)], ids='{0[0]}x{0[1]}'.format)
@pytest.mark.parametrize(
    'types', [('mmdet.RandomFlip', 'mmdet.PackDetInputs'), ('mmseg.RandomFlip', 'mmseg.PackSegInputs')]
)
def test_flipped_image_of_one_row_or_column_is_packed(types, size, direction):
    """A flip leaves a negative stride, which PyTorch refuses, at an axis of length 1."""
    flip, pack = dict(type=types[0], prob=1.0, direction=direction), dict(type=types[1], meta_keys=())
    image = np.arange(27, dtype=np.uint8).reshape(*size, 3)
    expected = torch.from_numpy(mmcv.imflip(image, direction).transpose(2, 0, 1).copy())
    augment = dict(type='TestTimeAug', transforms=[[flip], [pack]])
    for transforms in ([flip, pack], [augment]):
        dataset = SimpleNamespace(pipeline=Compose(transforms))
        copy_before_packing(SimpleNamespace(datasets=[dataset]))
        packed = dataset.pipeline(dict(img=image, img_shape=size))['inputs']
        assert torch.equal(packed[0] if isinstance(packed, list) else packed, expected)
    mixed = SimpleNamespace(pipeline=Compose([flip, pack]).transforms)  # a MultiImageMixDataset
    copy_before_packing(mixed)
    assert len(mixed.pipeline) == 2, 'it pairs the transforms with their types'
    assert torch.equal(Compose(mixed.pipeline)(dict(img=image, img_shape=size))['inputs'], expected)


@pytest.mark.slow
def test_test_batch_of_several_sizes_is_refused(data, train):
    """Segmentors pad training images only."""
    Image.fromarray(np.zeros((64, 80, 3), np.uint8)).save(data / 'val' / '000000.jpg')
    cv2.imwrite(str(data / 'labels' / 'val' / '000000.png'), np.ones((64, 80), np.uint8))
    status, _, errors = train(SEGMENTATION)
    assert status == 2 and 'val_dataloader.batch_size=1' in errors
