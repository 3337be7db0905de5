"""Images that two splits share are found by path, by content and by a perceptual hash."""

import shutil

import cv2
import numpy as np

from mlp_dense.checks.duplicates import image_hash, image_hashes, shared_images
from mlp_dense.datasets.shapes import make_scene


def scene(seed: int) -> np.ndarray:
    return cv2.resize(make_scene(np.random.default_rng(seed), 128)[0], (512, 512))


def test_shared_images_are_found_once(tmp_path):
    for i in range(8):
        cv2.imwrite(str(tmp_path / f'{i}.jpg'), scene(i))
    train = [str(tmp_path / f'{i}.jpg') for i in range(6)]
    shutil.copy(train[1], tmp_path / 'copy.jpg')
    changed = np.clip(scene(2) * 0.9 + 8, 0, 255).astype(np.uint8)
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


def test_hash_ignores_images_of_one_colour_and_unreadable_files(tmp_path):
    cv2.imwrite(str(tmp_path / 'black.png'), np.zeros((64, 64), np.uint8))
    (tmp_path / 'text.png').write_text('')
    files, hashes = image_hashes(
        [str(tmp_path / 'black.png'), str(tmp_path / 'text.png'), str(tmp_path / 'absent.png')]
    )
    assert files == [] and hashes.shape == (0, 256)


def test_different_scenes_have_distant_hashes():
    hashes = np.array([image_hash(cv2.cvtColor(scene(i), cv2.COLOR_BGR2GRAY)) for i in range(12)])
    distances = (hashes[:, None] != hashes).sum(2)[~np.eye(12, dtype=bool)]
    assert distances.min() > 40
