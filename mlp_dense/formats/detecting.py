"""The format of a data set, detected from the contents of its files."""

import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError, some
from .coco import is_coco, read_coco
from .cvat import read_cvat
from .labelme import is_labelme, read_labelme
from .records import DataSet
from .semantic import label_files, read_labels
from .sources import Source
from .voc import read_voc
from .yolo import read_yolo, unnamed, yolo_files

SAMPLE = 30  # JSON and XML files whose contents are compared with the formats


class Format(NamedTuple):
    """A format that is read: what marks it, its files in a source, and its reader."""

    marks: str
    files: Callable[[Source], list[Path]]
    read: Callable[[Source, list[Path]], DataSet]


def json_files(condition: Callable[[Any], bool], source: Source) -> list[Path]:
    """Return the JSON files of a source whose content meets a condition."""
    instances = [file for file in source.with_suffix('.json') if file.name.startswith('instances_')]
    candidates = instances or source.with_suffix('.json')  # COCO's captions and keypoints take minutes to read
    return [file for file in candidates[:SAMPLE] if condition(source.json(file))]


def xml_files(tag: str, source: Source) -> list[Path]:
    """Return the XML files of a source with a root element."""
    return [file for file in source.with_suffix('.xml') if _root_tag(file) == tag]


def _root_tag(file: Path) -> str:
    with file.open('rb') as opened:
        match = re.search(rb'<([A-Za-z]\w*)', opened.read(4096).replace(b'\0', b''))  # also UTF-16
    return match[1].decode() if match else ''


FORMATS = {
    'coco': Format('a JSON file with images and categories', partial(json_files, is_coco), read_coco),
    'yolo': Format('data.yaml with names and train, obj.data, or classes.txt', yolo_files, read_yolo),
    'voc': Format('XML files with <annotation>', partial(xml_files, 'annotation'), read_voc),
    'labelme': Format('JSON files with shapes and imagePath', partial(json_files, is_labelme), read_labelme),
    'cvat': Format('an XML file with <annotations>', partial(xml_files, 'annotations'), read_cvat),
    'labels': Format('label maps or masks with the names of images', label_files, read_labels),
}
"""All formats; label maps are read if nothing else is found, because many sets of objects have them as well."""

VIA = ('a project of the VGG Image Annotator (VIA)', 'export "COCO format" in VIA')
LABEL_STUDIO = ('a task list of Label Studio', 'export COCO or YOLO in Label Studio')
FOREIGN = (
    ('dict', {'_via_settings'}, *VIA),
    ('values', {'filename', 'regions'}, *VIA),
    ('list', {'data', 'annotations'}, *LABEL_STUDIO),
    ('list', {'data', 'completions'}, *LABEL_STUDIO),
    ('list', {'image', 'annotation_id'}, *LABEL_STUDIO),
    ('list', {'image_id', 'score'}, 'a list of detections (a COCO results file)',
     'set the annotation file that belongs to it'),
    ('list', {'image_id', 'category_id'}, 'a list of annotations without images and categories',
     'set the complete COCO file'),
    ('list', {'image', 'annotations'}, 'a CreateML file', 'export COCO'),
    ('dict', {'objects', 'size'}, 'a Supervisely file', 'export COCO in Supervisely'),
    ('dict', {'items', 'categories'}, 'a Datumaro file', 'export COCO in Datumaro'),
)  # fmt: skip
"""JSON files that are recognized but not read: keys of a dict, of its first value or of the first item of a list, then
the title and the remedy."""


class NoFormatError(UserError):
    """A folder has no annotations in a known format."""


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
        if file := unnamed(source):
            raise UserError(f'{file} has no key "names"; add "names: [...]" with the names of all classes.')
        if name is None and (files := label_files(source)):
            return 'labels', files
        looked = '; '.join(f'{key}: {FORMATS[key].marks}' for key in ([name] if name else FORMATS))
        problem = f'{source.path} has no annotations in a known format ({looked})'
        raise NoFormatError(f'{problem}; set the folder that contains both images and annotations.')
    return next(iter(found.items()))


def _refuse_foreign(source: Source) -> None:
    for file in source.with_suffix('.json')[:SAMPLE]:
        content = source.json(file)
        found = dict(list=_first_keys(content)) if isinstance(content, list) else {}
        if isinstance(content, dict):
            found = dict(dict={*content}, values=_first_keys(content.values()))
        for kind, keys, title, remedy in FOREIGN:
            if keys <= found.get(kind, set()):
                raise UserError(f'{file} is {title}, which is not read; {remedy}.')
        if isinstance(content, dict) and {'images', 'annotations'} <= {*content} and 'categories' not in content:
            raise UserError(f'{file} is a COCO file without categories, which is not read; add the list "categories".')


def _first_keys(items: Iterable[Any]) -> set[str]:
    first = next(iter(items), None)
    return {*first} if isinstance(first, dict) else set()
