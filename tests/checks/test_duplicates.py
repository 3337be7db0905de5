"""Images that two splits share are found by path, by content and by a perceptual hash."""

import shutil

import cv2
import numpy as np
import pytest

from mlp_dense.checks.duplicates import shared_images
from mlp_dense.datasets.near_duplicates import near_duplicates, thumbnail
from mlp_dense.datasets.shapes import make_scene


def scene(seed: int) -> np.ndarray:
    return cv2.resize(make_scene(np.random.default_rng(seed), 128)[0], (512, 512))


def test_shared_images_are_found_once(tmp_path):
    for i in range(8):
        cv2.imwrite(str(tmp_path / f'{i}.jpg'), scene(i))
    train = [str(tmp_path / f'{i}.jpg') for i in range(6)]
    shutil.copy(train[1], tmp_path / 'copy.jpg')
    changed = np.clip(scene(2) * 0.97 + 3, 0, 255).astype(np.uint8)
    cv2.imwrite(str(tmp_path / 'near.jpg'), cv2.resize(changed, (400, 400)), [cv2.IMWRITE_JPEG_QUALITY, 60])
    val = [str(tmp_path / f'{name}.jpg') for name in ('0', 'copy', 'near', '6', '7')]
    problems = {
        finding.problem.partition(' the ')[0]: finding for finding in shared_images(dict(train=train, val=val), True)
    }
    assert {problem: finding.examples for problem, finding in problems.items()} == {
        'images are also in': (val[0],),
        'images are copies of images in': (val[1],),
        'images are nearly equal to images in': (val[2],),
    }
    assert [f.examples for f in shared_images(dict(train=train, val=val), False)] == [(val[0],), (val[1],)]


def test_flat_and_unreadable_images_are_no_near_duplicates(tmp_path):
    for i in range(2):
        cv2.imwrite(str(tmp_path / f'{i}.png'), np.full((64, 64), i, np.uint8))
    (tmp_path / 'text.png').write_text('')
    images = dict(train=[str(tmp_path / '0.png'), str(tmp_path / 'text.png')], val=[str(tmp_path / '1.png')])
    assert [*shared_images(dict(images, test=[str(tmp_path / 'absent.png')]), True)] == []


@pytest.mark.parametrize('bits', [8, 16])
def test_different_scenes_are_no_near_duplicates(bits):
    """The deep images have 12 bits, as those of many sensors."""
    images = [
        cv2.cvtColor(scene(i), cv2.COLOR_BGR2GRAY).astype(f'uint{bits}') * (1 if bits == 8 else 16) for i in range(12)
    ]
    encoded = [cv2.imencode('.png', image)[1].tobytes() for image in images]
    assert near_duplicates([thumbnail(content) for content in encoded]) == [[i] for i in range(12)]
