"""Annotation files in COCO's format: reading, and recognition of other formats."""

import gc
import json
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

from ..errors import UserError

CONVERT = 'export the annotations in the format of COCO, or convert them'


def read_json(file: Path) -> Any:
    """Return the content of a JSON file in UTF-8, UTF-16 or UTF-32, with or without a byte-order mark.

    Raises UserError if it cannot be read.
    """
    collects = gc.isenabled()
    gc.disable()  # 800,000 annotations: 3.7 s instead of 9.5 s, because JSON has no cycles to collect
    try:
        return json.loads(file.read_bytes())
    except UnicodeDecodeError as error:
        raise UserError(f'{file} is not text in UTF-8 ({error}); save it in UTF-8.') from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f'{file} is not a complete JSON file ({error}); restore it, or export it again.') from error
    finally:
        if collects:
            gc.enable()


def format_of(content: Any) -> str:
    """Return the name of the format of a JSON file, an empty string for COCO instances and unknown formats."""
    is_list = isinstance(content, list)
    record = content[0] if is_list and content else content
    if not isinstance(record, Mapping):
        return ''
    for is_in_list, keys, name in (
        (True, {'image_id', 'score'}, 'detections (a results file of a test)'),
        (True, {'image_id', 'caption'}, 'captions (a results file of a test)'),
        (True, {'image', 'annotations'}, 'CreateML'),
        (True, {'data', 'annotations'}, 'Label Studio'),
        (True, {'data', 'predictions'}, 'Label Studio'),
        (True, {'annotation_id', 'annotator'}, 'Label Studio (JSON-MIN)'),
        (True, {'name', 'labels'}, 'Scalabel or BDD100K'),
        (False, {'shapes', 'imagePath'}, 'LabelMe'),
        (False, {'_via_img_metadata'}, 'VIA'),
        (False, {'item', 'annotations'}, 'Darwin (V7)'),
        (False, {'objects', 'size'}, 'Supervisely'),
        (False, {'type', 'features'}, 'GeoJSON'),
    ):
        if is_list == is_in_list and keys <= record.keys():
            return name
    if not is_list and record and all(isinstance(value, Mapping) and 'regions' in value for value in record.values()):
        return 'VIA'
    annotations = record.get('annotations')
    first = annotations[0] if isinstance(annotations, list) and annotations else None
    for key, name in (('segments_info', 'COCO panoptic segmentation'), ('caption', 'COCO captions')):
        if isinstance(first, Mapping) and key in first:
            return name
    return ''


def read_coco(file: Path) -> dict:
    """Return the content of an annotation file: ``images``, ``annotations`` and ``categories``.

    Raises UserError if images or categories lack what a detector requires, or share an id.
    """
    content = read_json(file)
    if name := format_of(content):
        raise UserError(f'{file} has the format of {name}, not of COCO instances; {CONVERT}.')
    if not isinstance(content, dict):
        raise UserError(f'{file} contains a {type(content).__name__}, not COCO instances; {CONVERT}.')
    content.setdefault('annotations', [])
    for key in ('images', 'annotations', 'categories'):
        if not isinstance(content.get(key), list):
            raise UserError(f'{file} has no list {key!r}, which COCO instances have; {CONVERT}.')
    _check_ids(file, content['images'], 'image', 'file_name')
    _check_ids(file, content['categories'], 'category', 'name')
    for image in content['images']:
        for key in ('width', 'height'):
            image[key] = _pixels(file, image, key)
    return content


def _check_ids(file: Path, records: list, noun: str, name: str) -> None:
    """Raise UserError if a record of an image or a category has no id or no name, or the id of another record."""
    by_id: dict[Any, Mapping] = {}
    for number, record in enumerate(records):
        if not isinstance(record, dict) or not isinstance(record.get('id'), (int, float, str)):
            raise UserError(f'{file}: record {number} of {noun} has no id ({str(record)[:80]}); add a unique number.')
        if not isinstance(record.get(name), str) or not record[name]:
            raise UserError(f'{file}: {noun} {record["id"]!r} has the {name} {record.get(name)!r}; set a text.')
        other = by_id.setdefault(record['id'], record)
        if other is not record:
            problem = f'{other[name]!r} and {record[name]!r} both have the {noun} id {record["id"]!r}'
            raise UserError(f'{file}: {problem}; give each {noun} its own id, also in the annotations.')


def _pixels(file: Path, image: Mapping, key: str) -> int | float:
    """Return the width or height of an image as a whole number if it is one."""
    value = image.get(key)
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number < inf:
        raise UserError(f'{file}: {key} of image {image["file_name"]} is {value!r}; set the pixels of the image.')
    return int(number) if number.is_integer() else number
