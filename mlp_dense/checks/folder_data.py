"""Data sets in a folder without a config: annotations and label maps in any format, or folders of classes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import ConfigDict

from .. import formats
from ..datasets import SYSTEM_FOLDERS
from ..datasets.coco import format_of, read_coco, read_json
from ..errors import UserError
from ..formats.sources import ORDER, SPLITS, split_of
from .image_files import images_by_suffix


def datasets_in(
    root: Path, converted: Path, colors: Path | None = None
) -> tuple[list[tuple[str, ConfigDict]], list[str]]:
    """Return the name of the split and the config of each data set in a folder, and notes about the reading.

    Annotations that mmdet or mmsegmentation cannot read are written into the folder `converted`. `colors` is a file
    with the colours of the classes in label maps. Raises UserError if a file has an unknown format, or no data are
    found.
    """
    datasets, notes = _converted(root, converted, colors)
    datasets = datasets or [*_coco(root)] or [*_classes(root)]
    if not datasets:
        raise UserError(
            f'{root} has no data in a known layout: add COCO annotations, label maps with the base names of '
            'the images, or folders of classes (docs/datasets.md).'
        )
    return datasets, notes


def _converted(root: Path, converted: Path, colors: Path | None) -> tuple[list[tuple[str, ConfigDict]], list[str]]:
    """Return the data sets of all formats, except COCO, and the notes of the reader."""
    try:
        name = formats.detect(root)
    except UserError:  # broken, or folders of classes
        return [], []
    if name == 'coco':
        return [], []
    data = formats.read(root, name, colors=colors)
    datasets = []
    for split, place in formats.places_of(data, converted / 'data').places.items():
        if place.annotations:
            files = place.annotations, place.images
            config = _coco_config(*files, data.classes, False) if name != 'labels' else _label_maps(place, data.classes)
            datasets.append((split if split in ORDER else 'train', config))
    return datasets, data.notes


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


def _label_maps(place: formats.Place, classes: list[str]) -> ConfigDict:
    image_suffix, suffix = place.suffixes or ('', '')
    return ConfigDict(
        type='BaseSegDataset',
        _scope_='mmseg',
        data_prefix=dict(img_path=str(place.images), seg_map_path=str(place.annotations)),
        img_suffix=image_suffix,
        seg_map_suffix=suffix,
        metainfo=dict(classes=classes),
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


def scope_of(dataset: Any) -> str:
    """Return the scope that a data set of this module needs."""
    return {'BaseSegDataset': 'mmseg', 'mlp_dense.ClassFolders': 'mlp_dense'}.get(dataset.type, 'mmdet')
