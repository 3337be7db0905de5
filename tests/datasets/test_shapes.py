"""Generated data set: deterministic, consistent between its annotations, and valid COCO."""

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from mlp_dense.datasets.shapes import CLASSES, make_scene, write_shapes
from mlp_dense.errors import UserError


def test_annotations_and_label_maps_agree(shapes):
    for split, count in (('train', 16), ('val', 8)):
        coco = COCO(shapes / 'annotations' / f'instances_{split}.json')
        assert len(coco.imgs) == count
        assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == list(CLASSES)
        for image_id, info in coco.imgs.items():
            image = cv2.imread(str(shapes / split / info['file_name']))
            labels = cv2.imread(str(shapes / 'labels' / split / info['file_name'].replace('jpg', 'png')), -1)
            assert image.shape == (info['height'], info['width'], 3)
            assert labels.shape == image.shape[:2]
            expected = np.ones_like(labels)
            for annotation in coco.imgToAnns[image_id]:
                mask = coco.annToMask(annotation).astype(bool)
                truth = labels == annotation['category_id'] + 1
                left, top, width, height = annotation['bbox']
                box = np.zeros_like(truth)
                box[top : top + height, left : left + width] = True
                assert not annotation['iscrowd'] and all(len(polygon) >= 6 for polygon in annotation['segmentation'])
                assert annotation['area'] == pytest.approx(mask.sum(), rel=0.06)
                assert (mask & truth).sum() >= 0.94 * mask.sum()
                assert (mask & ~box).sum() == 0
                expected[mask & truth] = annotation['category_id'] + 1
            assert (expected != labels).mean() < 0.01


def test_scenes_vary_and_some_are_empty():
    scenes = [make_scene(np.random.default_rng((0, index)), 128)[1] for index in range(60)]
    areas = [mask.sum() for scene in scenes for _, mask in scene]
    assert {label for scene in scenes for label, _ in scene} == set(range(len(CLASSES)))
    assert any(not scene for scene in scenes)
    assert max(areas) > 20 * min(areas)


def test_seed_determines_all_files(tmp_path):
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        write_shapes(tmp_path / name, num_train=2, num_val=1, seed=seed)
    contents = [
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob('*.*')}
        for name in 'abc'
    ]
    assert contents[0] == contents[1] != contents[2]


def test_images_for_classification_are_in_folders_of_classes(tmp_path):
    write_shapes(tmp_path / 'data', num_train=12, num_val=5, size=32, classify=True)
    for split, count in (('train', 12), ('val', 5)):
        files = sorted((tmp_path / 'data' / split).rglob('*.*'))
        assert len(files) == count and {file.parent.name for file in files} == set(CLASSES)
        assert all(cv2.imread(str(file)).shape == (32, 32, 3) for file in files)


def test_existing_folder_is_unchanged(tmp_path):
    (tmp_path / 'notes.txt').write_text('precious')
    with pytest.raises(UserError, match='is not empty'):
        write_shapes(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['notes.txt']
    with pytest.raises(UserError, match='cannot be written'):
        write_shapes(tmp_path / 'notes.txt' / 'shapes', num_train=1, num_val=1)
