"""The format of a data set, detected from the contents of its files."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError, some
from .coco import is_coco, read_coco
from .cvat import cvat_files, read_cvat
from .labelme import is_labelme, read_labelme
from .records import DataSet
from .semantic import label_files, read_labels
from .sources import Source
from .voc import read_voc, voc_files
from .yolo import read_yolo, yolo_files

SAMPLE = 30  # JSON and XML files whose contents are compared with the formats


class Format(NamedTuple):
    """A format that is read: what marks it, its files in a source, and its reader."""

    marks: str
    files: Callable[[Source], list[Path]]
    read: Callable[[Source, list[Path]], DataSet]


def json_files(condition: Callable[[Any], bool]) -> Callable[[Source], list[Path]]:
    """Return a function that returns the JSON files of a source whose content meets a condition."""

    def files(source: Source) -> list[Path]:
        instances = [file for file in source.with_suffix('.json') if file.name.startswith('instances_')]
        candidates = instances or source.with_suffix('.json')  # COCO's captions and keypoints take minutes to read
        return [file for file in candidates[:SAMPLE] if condition(source.json(file))]

    return files


FORMATS = {
    'coco': Format('a JSON file with images and categories', json_files(is_coco), read_coco),
    'yolo': Format('data.yaml with names and train, obj.data, or classes.txt', yolo_files, read_yolo),
    'voc': Format('XML files with <annotation>', voc_files, read_voc),
    'labelme': Format('JSON files with shapes and imagePath', json_files(is_labelme), read_labelme),
    'cvat': Format('an XML file with <annotations>', cvat_files, read_cvat),
    'labels': Format('label maps or masks with the names of images', label_files, read_labels),
}
"""All formats; label maps are read if nothing else is found, because many sets of objects have them as well."""

FOREIGN: dict[str, tuple[str, Callable[[Any], bool]]] = {
    'a project of the VGG Image Annotator (VIA)': (
        'export "COCO format" in VIA',
        lambda content: isinstance(content, dict)
        and ('_via_settings' in content or {'filename', 'regions'} <= _first_keys(content.values())),
    ),
    'a task list of Label Studio': (
        'export COCO or YOLO in Label Studio',
        lambda content: isinstance(content, list)
        and (
            {'data', 'annotations'} <= _first_keys(content)
            or {'data', 'completions'} <= _first_keys(content)
            or {'image', 'annotation_id'} <= _first_keys(content)
        ),
    ),
    'a list of detections (a COCO results file)': (
        'set the annotation file that belongs to it',
        lambda content: isinstance(content, list) and {'image_id', 'score'} <= _first_keys(content),
    ),
    'a list of annotations without images and categories': (
        'set the complete COCO file',
        lambda content: isinstance(content, list) and {'image_id', 'category_id'} <= _first_keys(content),
    ),
    'a CreateML file': (
        'export COCO',
        lambda content: isinstance(content, list) and {'image', 'annotations'} <= _first_keys(content),
    ),
    'a Supervisely file': (
        'export COCO in Supervisely',
        lambda content: isinstance(content, dict) and {'objects', 'size'} <= content.keys(),
    ),
    'a Datumaro file': (
        'export COCO in Datumaro',
        lambda content: isinstance(content, dict) and {'items', 'categories'} <= content.keys(),
    ),
    'a COCO file without categories': (
        'add the list "categories"',
        lambda content: isinstance(content, dict)
        and {'images', 'annotations'} <= content.keys()
        and 'categories' not in content,
    ),
}
"""JSON files that are recognized but not read: the remedy, and the condition of the content."""


def _first_keys(items: Iterable[Any]) -> set[str]:
    first = next(iter(items), None)
    return {*first} if isinstance(first, dict) else set()


def find(source: Source, name: str | None = None) -> tuple[str, list[Path]]:
    """Return the format of a source and its files. Raises UserError if no format or several are found."""
    if name is not None and name not in FORMATS:
        raise UserError(f'The format {name!r} is unknown; use {", ".join(FORMATS)}.')
    names = [name] if name else [key for key in FORMATS if key != 'labels']
    found = {key: files for key in names if (files := FORMATS[key].files(source))}
    if len(found) > 1:
        texts = [f'{key} ({some([source.relative(file) for file in files])})' for key, files in found.items()]
        raise UserError(f'{source.path} has annotations in several formats: {", ".join(texts)}; pass --format NAME.')
    if not found:
        _refuse_foreign(source)
        if name is None and (files := label_files(source)):
            return 'labels', files
        looked = '; '.join(f'{key}: {FORMATS[key].marks}' for key in ([name] if name else FORMATS))
        raise UserError(f'{source.path} has no annotations in a known format ({looked}); set the folder of the data.')
    return next(iter(found.items()))


def _refuse_foreign(source: Source) -> None:
    for file in source.with_suffix('.json')[:SAMPLE]:
        for title, (remedy, condition) in FOREIGN.items():
            if condition(source.json(file)):
                raise UserError(f'{file} is {title}, which is not read; {remedy}.')
