"""Data sets in a folder without a config: annotations and label maps in any format, or folders of classes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import ConfigDict

from .. import formats
from ..config.new_config import FOLDERS_OF_FILES
from ..datasets.coco_json import format_of, read_coco, read_json
from ..formats.sources import ORDER, SPLITS, split_of
from .data_files import images_by_suffix, visible

Named = list[tuple[str, ConfigDict]]
"""Pairs of a split and the config of a data set."""


def datasets_in(
    root: Path, converted: Path, colors: Path | None = None, format: str | None = None
) -> tuple[Named, str, list[str]]:
    """Return the split and the config of each data set in a folder, a sentence on the format, and notes.

    Annotations that mmdet or mmsegmentation cannot read are written into the folder `converted`. `colors` is a file
    with the colours of the classes in label maps. `format` is required if several formats are present. Raises UserError
    if a file has an unknown format, or no data are found.
    """
    datasets, found, notes = _converted(root, converted, colors, format)
    if datasets:
        return datasets, found, notes
    if datasets := [*_coco(root)]:
        names = [Path(dataset.ann_file).relative_to(root).as_posix() for _, dataset in datasets]
        return datasets, f'COCO annotations: {", ".join(names)}.', []
    if datasets := [*_classes(root)]:
        return datasets, f'Folders of classes in {root}.', []
    formats.detect(root)  # raises the reason
    return [], '', []


def _converted(root: Path, converted: Path, colors: Path | None, format: str | None) -> tuple[Named, str, list[str]]:
    """Return the data sets of all formats, except COCO, what was found, and the notes of the reader."""
    try:
        name = formats.detect(root, format)
    except formats.NoFormatError:  # folders of classes
        return [], '', []
    if name == 'coco':
        return [], '', []
    data = formats.read(root, name, colors=colors)
    places = formats.places_of(data, converted / 'data').places.items()
    splits = [(split if split in ORDER else 'train', place) for split, place in places]
    if name == 'labels':
        return [(split, _label_maps(place, data.classes)) for split, place in splits], data.found, data.notes
    return [(split, _objects(place, data.classes, False)) for split, place in splits], data.found, data.notes


def _split(path: Path, root: Path) -> str:
    """Return the split that a path names, by default ``train``."""
    return split_of(*reversed(path.relative_to(root).parts)) or 'train'


def _folders(root: Path) -> list[Path]:
    return [path for path in visible(root) if path.is_dir()]


def _coco(root: Path) -> Iterator[tuple[str, ConfigDict]]:
    for file in visible(root, '*.json'):
        content = read_json(file)
        if not format_of(content) and not (isinstance(content, dict) and {'images', 'annotations'} & content.keys()):
            continue  # other information
        content = read_coco(file)
        names = [image['file_name'] for image in content['images']]
        masks = any(annotation.get('segmentation') for annotation in content['annotations'][:1000])
        classes = [category['name'] for category in content['categories']]
        yield _split(file, root), _objects(formats.Place(file, _folder_of(names, file, root)), classes, masks)


def _objects(place: formats.Place, classes: list[str], masks: bool) -> ConfigDict:
    load = dict(type='LoadAnnotations', with_bbox=True, with_mask=masks, _scope_='mmdet')
    return ConfigDict(
        type='mlp_dense.CocoDataset',
        ann_file=str(place.annotations),
        data_prefix=dict(img=str(place.images)),
        metainfo=dict(classes=classes),
        pipeline=[dict(type='LoadImageFromFile', _scope_='mmdet'), load],
    )


def _folder_of(names: list[str], file: Path, root: Path) -> Path:
    """Return the folder that contains the images of an annotation file."""
    folders = [file.parent, root, *_folders(root)]
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
    for folder in [path for path in _folders(root) if path.name.lower() in SPLITS] or [root]:
        folders = [path for path in folder.iterdir() if path.is_dir() and not FOLDERS_OF_FILES.fullmatch(path.name)]
        if any(map(images_by_suffix, folders)):
            settings = dict(data_prefix=dict(img_path=str(folder)), pipeline=[dict(type='mlp_dense.LoadImage')])
            yield _split(folder, root.parent), ConfigDict(type='mlp_dense.ClassFolders', **settings)


def scope_of(dataset: Any) -> str:
    """Return the scope that a data set of this module needs."""
    return {'BaseSegDataset': 'mmseg', 'mlp_dense.ClassFolders': 'mlp_dense'}.get(dataset.type, 'mmdet')
