"""Data sets in a folder without a config: annotations, label maps next to images, folders of classes."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import ConfigDict
from PIL import Image

from .. import formats
from ..datasets import SYSTEM_FOLDERS
from ..datasets.coco import format_of, read_coco, read_json
from ..errors import UserError
from ..formats.sources import ORDER, SPLITS, split_of
from .image_files import images_by_suffix

LABEL_MODES = ('1', 'L', 'P', 'I', 'F', 'I;16', 'I;16B')


def datasets_in(root: Path, converted: Path) -> Iterator[tuple[str, ConfigDict]]:
    """Yield the name of the split and the config of each data set in a folder.

    Annotations in other formats than COCO's are written into the folder `converted`. Raises UserError if an annotation
    file has an unknown format, or no data are found.
    """
    found = [*_converted(root, converted)] or [*_coco(root)] or [*_label_maps(root)] or [*_classes(root)]
    if not found:
        raise UserError(
            f'{root} has no data in a known layout: add COCO annotations, label maps with the base names of '
            'the images, or folders of classes (docs/datasets.md).'
        )
    yield from found


def _converted(root: Path, converted: Path) -> Iterator[tuple[str, ConfigDict]]:
    """Yield the data sets of YOLO, Pascal VOC, LabelMe and CVAT."""
    try:
        name = formats.detect(root)
    except UserError:  # broken, or folders of classes
        return
    if name in ('coco', 'labels'):
        return
    data = formats.read(root, name)
    for split, place in formats.places_of(data, converted / 'data').places.items():
        if place.annotations:
            yield (
                split if split in ORDER else 'train',
                _coco_config(place.annotations, place.images, data.classes, masks=False),
            )


def _split(path: Path, root: Path) -> str:
    """Return the split that a path names, by default ``train``."""
    return split_of(*reversed(path.relative_to(root).parts)) or 'train'


def _visible(root: Path, pattern: str) -> list[Path]:
    return [
        path
        for path in sorted(root.rglob(pattern))
        if not any(part[0] == '.' or part in SYSTEM_FOLDERS for part in path.relative_to(root).parts)
    ]


def _coco(root: Path) -> Iterator[tuple[str, ConfigDict]]:
    for file in _visible(root, '*.json'):
        content = read_json(file)
        if not format_of(content) and not (isinstance(content, dict) and {'images', 'annotations'} & content.keys()):
            continue  # other information
        content = read_coco(file)
        names = [image['file_name'] for image in content['images']]
        masks = any(annotation.get('segmentation') for annotation in content['annotations'][:1000])
        classes = [category['name'] for category in content['categories']]
        yield _split(file, root), _coco_config(file, _folder_of(names, file, root), classes, masks)


def _coco_config(file: Path, images: Path, classes: list[str], masks: bool) -> ConfigDict:
    load = dict(type='LoadAnnotations', with_bbox=True, with_mask=masks, _scope_='mmdet')
    return ConfigDict(
        type='mlp_dense.CocoDataset',
        ann_file=str(file),
        data_prefix=dict(img=str(images)),
        metainfo=dict(classes=classes),
        pipeline=[dict(type='LoadImageFromFile', _scope_='mmdet'), load],
    )


def _folder_of(names: list[str], file: Path, root: Path) -> Path:
    """Return the folder that contains the images of an annotation file."""
    folders = [file.parent, root, *(path for path in _visible(root, '*') if path.is_dir())]
    counts = {folder: sum((folder / name).is_file() for name in names[:20]) for folder in folders}
    return max(folders, key=counts.__getitem__)


def _label_maps(root: Path) -> Iterator[tuple[str, ConfigDict]]:
    """Yield pairs of folders with equal base names, where the files of one have a single channel."""
    folders = {folder: _images(folder) for folder in [root, *_visible(root, '*')] if folder.is_dir()}
    labels = {folder: files for folder, files in folders.items() if files and _is_label_map(files[0])}
    for folder, files in folders.items():
        if folder in labels or not files:
            continue
        stems, split = {file.stem for file in files}, _split(folder, root)
        common = {other: len(stems & {file.stem for file in maps}) for other, maps in labels.items()}
        best = max(common, key=lambda other: (_split(other, root) == split, common[other]), default=None)
        if best and common[best] > 0.5 * len(stems):
            yield split, _label_map_config(folder, best, files[0].suffix, labels[best])


def _label_map_config(images: Path, labels: Path, suffix: str, maps: list[Path]) -> ConfigDict:
    largest = 1
    for file in maps[:: max(1, len(maps) // 100)]:
        with suppress(OSError), Image.open(file) as image:  # unreadable files are reported later
            values = np.unique(np.asarray(image))
            largest = max(largest, *values[values < 255].astype(int).tolist(), 0)
    return ConfigDict(
        type='BaseSegDataset',
        _scope_='mmseg',
        data_prefix=dict(img_path=str(images), seg_map_path=str(labels)),
        img_suffix=suffix,
        seg_map_suffix=maps[0].suffix,
        metainfo=dict(classes=[f'label {i}' for i in range(largest + 1)]),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')],
    )


def _classes(root: Path) -> Iterator[tuple[str, ConfigDict]]:
    for folder in [path for path in _visible(root, '*') if path.is_dir() and path.name.lower() in SPLITS] or [root]:
        if any(images_by_suffix(path) for path in folder.iterdir() if path.is_dir()):
            yield (
                _split(folder, root.parent),
                ConfigDict(
                    type='mlp_dense.ClassFolders',
                    data_prefix=dict(img_path=str(folder)),
                    pipeline=[dict(type='mlp_dense.LoadImage')],
                ),
            )


def _images(folder: Path) -> list[Path]:
    return [Path(file) for files in images_by_suffix(folder).values() for file in files if Path(file).parent == folder]


def _is_label_map(file: Path) -> bool:
    with suppress(OSError), Image.open(file) as image:
        return file.suffix.lower() in ('.png', '.tif', '.tiff', '.bmp') and image.mode in LABEL_MODES
    return False


def scope_of(dataset: Any) -> str:
    """Return the scope that a data set of this module needs."""
    return {'BaseSegDataset': 'mmseg', 'mlp_dense.ClassFolders': 'mlp_dense'}.get(dataset.type, 'mmdet')
