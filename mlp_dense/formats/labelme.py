"""LabelMe's JSON files, one for each image."""

import base64
import binascii
import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import UnreadableError, UserError, counted, some
from .records import Annotation, DataSet, Losses, Record, box_of, elliptic, joined_groups, masked, outlined
from .sources import Source, common_folder, image_size, lines_of, missing_images, named_splits, number, read_json

NOT_CLASSES = ('__ignore__', '_background_')  # first lines of LabelMe's labels.txt
MINIMUM = dict(polygon=3, rectangle=2, circle=2, mask=2)
"""Numbers of points of the shapes that are read."""


def is_labelme(content: Any) -> bool:
    """Whether the content of a JSON file has LabelMe's shapes of one image."""
    shapes = content.get('shapes') if isinstance(content, dict) else None
    return isinstance(shapes, list) and all(isinstance(shape, dict) for shape in shapes) and 'imagePath' in content


def read_labelme(source: Source, files: Sequence[Path]) -> DataSet:
    """Read the JSON files of all images; classes are sorted by name if ``labels.txt`` does not list them."""
    contents = {file: content for file in source.with_suffix('.json') if is_labelme(content := _content(file))}
    folder = source.relative(common_folder(contents))
    data = DataSet(source.root, 'labelme', f'LabelMe annotations: {len(contents)} JSON files in {folder}.')
    used = {str(shape.get('label')) for content in contents.values() for shape in content['shapes']}
    data.classes = _classes(source, used, data.notes)
    images = {file: _image(source, file, content['imagePath']) for file, content in contents.items()}
    if missing := [source.relative(file) for file in contents if not images[file] and not contents[file]['imageData']]:
        raise missing_images('LabelMe files', missing, len(images), [file.parent for file in files[:1]])
    if embedded := [source.relative(file) for file, image in images.items() if image is None]:
        number_of_images = counted(len(embedded), 'image')
        data.notes.append(f'{number_of_images} do not exist as files and are read from the JSON ({some(embedded)}).')
    members: dict[str, list[Path]] = {}
    for file in contents:
        members.setdefault(source.split_of(file), []).append(file)
    for split, paths in members.items():
        data.splits[split] = [_record(file, contents[file], images[file], data) for file in paths]
    data.splits = named_splits(data.splits)
    return data


def _classes(source: Source, used: set[str], notes: list[str]) -> list[str]:
    lists = [file for file in source.files if file.name == 'labels.txt']
    if not lists:
        notes.append('The classes are sorted by name, because there is no labels.txt.')
        return sorted(used)
    names = list(dict.fromkeys(name for _, name in lines_of(lists[0]) if name not in NOT_CLASSES or name in used))
    if unknown := sorted(used - {*names}):
        raise UserError(f'{lists[0]} does not list the classes {some(unknown)}; add them.')
    return names


def _content(file: Path) -> Any:
    """Return the content of a JSON file, without the image in it, which may be larger than all the rest."""
    content = read_json(file)
    if isinstance(content, dict):
        content['imageData'] = bool(content.get('imageData'))
    return content


def _image(source: Source, file: Path, name: str | None) -> Path | None:
    folders = [file.parent, file.parent.parent / 'images', file.parent.parent]
    name = str(name or file.with_suffix('.jpg').name).replace('\\', '/')
    exact = file.parent / name  # may begin with ../
    if exact.is_file():
        return Path(os.path.normpath(exact))
    return source.find(Path(name).name, folders) or source.find(file.stem, folders, stem=True)


def _record(file: Path, content: dict, image: Path | None, data: DataSet) -> Record:
    width, height = (int(number(content.get(key) or 0, str(file))) for key in ('imageWidth', 'imageHeight'))
    if image is None:
        name = Path(str(content['imagePath']).replace('\\', '/')).name or f'{file.stem}.jpg'
        record = Record(name, file, *image_size(file, image_bytes(file)), embedded=True)
    else:
        size = (width, height) if min(width, height) > 0 else image_size(image)
        record = Record(image.name, image, *size)
    parts = []
    for i, shape in enumerate(content['shapes'], start=1):
        if part := _annotation(shape, f'{file}: shape {i}', data.classes, record, data.losses):
            group = shape.get('group_id')
            parts.append((None if group is None else str(group), part))
    record.annotations = joined_groups(parts, record.height, record.width)
    return record


def image_bytes(file: Path) -> bytes:
    """Return the image inside of a JSON file."""
    try:
        return base64.b64decode(read_json(file)['imageData'], validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        problem = f'{file} has an invalid imageData ({error})'
        raise UnreadableError(f'{problem}; save the file with LabelMe again.') from error


def _annotation(shape: dict, place: str, classes: list[str], record: Record, losses: Losses) -> Annotation | None:
    kind = str(shape.get('shape_type') or 'polygon')  # old versions have polygons only
    if kind not in MINIMUM:
        losses.dropped[f'they are of the type {kind!r}, which has no area'].append(place)
        return None
    try:
        points = [(number(x, place), number(y, place)) for x, y in shape.get('points') or ()]
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f'{place} has a point that is not a pair of numbers; draw it again.') from error
    label = classes.index(str(shape.get('label')))
    if len(points) < MINIMUM[kind]:
        losses.dropped[f'they have fewer points than a {kind}'].append(place)
        return None
    polygon = tuple(value for point in points for value in point)
    if kind == 'rectangle':
        return Annotation(label, box_of([polygon]), origin=place)
    if kind == 'circle':
        (x, y), (edge_x, edge_y) = points[:2]
        radius = number(np.hypot(edge_x - x, edge_y - y), place)
        losses.changed['circles become outlines that differ by at most 0.1 pixel'].append(place)
        return elliptic(label, (x, y), (radius, radius), 0.0, place)
    if kind == 'mask':
        return _mask(shape, place, label, points, record)
    return outlined(label, polygon, place)


def _mask(shape: dict, place: str, label: int, points: list[tuple[float, float]], record: Record) -> Annotation:
    """Return an object with the mask that is stored for the rectangle of its two points."""
    try:
        with Image.open(BytesIO(base64.b64decode(shape['mask']))) as image:
            inside = np.asarray(image.convert('L')) > 0
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f'{place} has an invalid mask ({error!r}); draw it again.') from error
    pixels = np.zeros((record.height, record.width), bool)
    left, top = int(min(x for x, _ in points)), int(min(y for _, y in points))
    target = pixels[top : top + inside.shape[0], left : left + inside.shape[1]]
    target[:] = inside[: target.shape[0], : target.shape[1]]
    return masked(label, pixels, place)
