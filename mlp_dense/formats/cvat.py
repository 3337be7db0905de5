"""CVAT's XML files for images, version 1.1."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError
from .records import Annotation, DataSet, Record, box_between, elliptic, joined_groups, masked, outlined
from .sources import SPLITS, Source, image_size, missing_images, named_splits, number, read_xml

NOT_READ = ('polyline', 'points', 'cuboid', 'skeleton', 'tag')
SHAPES = ('box', 'polygon', 'mask', 'ellipse')


def read_cvat(source: Source, files: Sequence[Path]) -> DataSet:
    """Read the images of annotation files; the classes are the labels of the first file."""
    names = ', '.join(map(source.relative, files))
    data = DataSet(source.root, 'cvat', f'CVAT annotations for images: {names}.')
    entries: dict[str, list[tuple[Path, ET.Element, Path]]] = {}
    for file in files:
        root = read_xml(file)
        if root.find('track') is not None:
            raise UserError(f'{file} is "CVAT for video", whose tracks are not read; export "CVAT for images 1.1".')
        names_in_header = [label.findtext('name') or '' for label in root.iterfind('meta//labels/label')]
        data.classes += [name for name in names_in_header if name not in data.classes]
        images = list(root.iterfind('image'))
        folders = [file.parent / 'images', file.parent]
        found = [source.find(*_name_and_folders(image, folders)) for image in images]
        if missing := [str(image.get('name')) for image, path in zip(images, found, strict=True) if path is None]:
            raise missing_images(source.relative(file), missing, len(images), folders[:1])
        for image, path in zip(images, found, strict=True):
            subset = image.get('subset') or 'default'
            subset = SPLITS.get(subset.lower(), subset)
            entries.setdefault(subset, []).append((file, image, path))  # type: ignore[arg-type]
    if not data.classes:
        shapes = [shape for members in entries.values() for _, image, _ in members for shape in image]
        data.classes = sorted({name for shape in shapes if (name := shape.get('label')) and shape.tag in SHAPES})
        data.notes.append('The classes are sorted by name, because the header has no labels.')
    for subset, members in entries.items():
        data.splits[subset] = [_record(file, image, path, data) for file, image, path in members]
    data.splits = named_splits(data.splits)
    return data


def _name_and_folders(image: ET.Element, folders: list[Path]) -> tuple[str, list[Path]]:
    subset = image.get('subset')
    return image.get('name', ''), [*(folder / subset for folder in folders if subset), *folders]


def _record(file: Path, image: ET.Element, path: Path, data: DataSet) -> Record:
    place = f'{file}: image {image.get("id")}'
    width, height = (int(number(image.get(side) or 0, place)) for side in ('width', 'height'))
    if min(width, height) <= 0:
        width, height = image_size(path)
    record = Record(path.name, path, width, height)
    parts = []
    for i, shape in enumerate(image, start=1):
        origin = f'{place}: {shape.tag} {i}'
        if shape.tag in NOT_READ:
            data.losses.dropped[f'they are of the type {shape.tag!r}, which has no area'].append(origin)
        elif shape.tag in SHAPES:
            if shape.get('label') not in data.classes:
                problem = f'{origin} has the label {shape.get("label")!r}, which the header does not list'
                raise UserError(f'{problem}; add it.')
            group = shape.get('group_id')
            parts.append((None if group in (None, '0') else group, _annotation(shape, origin, record, data)))
    record.annotations = joined_groups(parts, height, width)
    return record


def _annotation(shape: ET.Element, place: str, record: Record, data: DataSet) -> Annotation:
    label = data.classes.index(shape.get('label', ''))

    def values(*names: str) -> list[float]:
        return [number(shape.get(name), place) for name in names]

    turn = number(shape.get('rotation') or 0, place)
    if shape.tag == 'box':
        left, top, right, bottom = values('xtl', 'ytl', 'xbr', 'ybr')
        if not turn:
            return Annotation(label, box_between(left, top, right, bottom), origin=place)
        data.losses.changed['rotated boxes become outlines'].append(place)
        return outlined(label, _turned(left, top, right, bottom, turn), place)
    if shape.tag == 'ellipse':
        data.losses.changed['ellipses become outlines that differ by at most 0.1 pixel'].append(place)
        return elliptic(label, values('cx', 'cy'), values('rx', 'ry'), turn, place)
    if shape.tag == 'mask':
        return _mask(shape, place, label, [int(value) for value in values('left', 'top', 'width', 'height')], record)
    points = tuple(number(value, place) for value in (shape.get('points') or '').replace(';', ',').split(','))
    if len(points) < 6 or len(points) % 2:
        raise UserError(f'{place} has {len(points)} coordinates; a polygon has at least three points; remove it.')
    return outlined(label, points, place)


def _turned(left: float, top: float, right: float, bottom: float, degrees: float) -> tuple[float, ...]:
    """Return the corners of a box that is rotated clockwise around its centre."""
    x, y, angle = (left + right) / 2, (top + bottom) / 2, np.radians(degrees)
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]]) - (x, y)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return tuple(np.round(corners @ turn + (x, y), 3).ravel().tolist())


def _mask(shape: ET.Element, place: str, label: int, area: list[int], record: Record) -> Annotation:
    """Return an object of runs of pixels, row by row, in a rectangle; the first run is outside of the object."""
    left, top, width, height = area
    runs = [int(number(run, place)) for run in (shape.get('rle') or '0').split(',')]
    if sum(runs) != width * height or min(runs) < 0:
        raise UserError(f'{place} has runs of {sum(runs)} pixels in {width}x{height}; export it again.')
    inside = np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width)
    pixels = np.zeros((max(record.height, top + height), max(record.width, left + width)), np.uint8)
    pixels[top : top + height, left : left + width] = inside
    return masked(label, pixels[: record.height, : record.width], place)
