"""Data sets in memory, which all readers return and all writers accept."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as masks

from ..errors import UserError, counted, some

Polygon = tuple[float, ...]
"""An outline: x1, y1, x2, y2, ..."""


class Box(NamedTuple):
    """A box in pixels."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Annotation:
    """An object of an image. Coordinates are pixels; the left upper corner of the image is (0, 0)."""

    label: int
    """Index of the class."""
    box: Box
    polygons: tuple[Polygon, ...] = ()
    """Outlines of the parts of the object."""
    rle: Mapping | None = None
    """A mask in COCO's run-length encoding, with ``size`` (height, width) and ``counts``, instead of polygons."""
    crowd: bool = False
    area: float | None = field(default=None, compare=False)
    """The area in the source, None if the format has none."""
    origin: str = field(default='', compare=False)
    """The file and the line or id in it, for messages."""


@dataclass
class Record:
    """An image and its annotations."""

    name: str
    """Path relative to the folder of images, with ``/`` on all systems."""
    file: Path
    """The image, or with `embedded` the JSON file of LabelMe that contains it."""
    width: int
    height: int
    annotations: list[Annotation] = field(default_factory=list)
    label_maps: dict[str, Path] = field(default_factory=dict)
    """Files of label maps: one with the key '', or a mask for each class with its name as key."""
    embedded: bool = False

    @property
    def folder(self) -> Path:
        """The folder to which the name is relative."""
        return self.file.parents[len(Path(self.name).parts) - 1]


class Place(NamedTuple):
    """Files of a split that a config can name.

    `annotations` is the annotation file, or the folder of the label maps. It is None if a new file has to be written.
    """

    annotations: Path | None
    images: Path
    suffixes: tuple[str, str] | None = None
    """Suffix of the images and suffix of the label maps; None for objects."""


class Losses:
    """Information that a format cannot express, or that a reader does not read, with examples.

    `dropped` are objects that are missing afterwards, `changed` are objects that differ, and `renamed` are images. Each
    maps a reason to examples.
    """

    def __init__(self) -> None:
        self.dropped: dict[str, list[str]] = defaultdict(list)
        self.changed: dict[str, list[str]] = defaultdict(list)
        self.renamed: dict[str, list[str]] = defaultdict(list)

    def lines(self) -> list[str]:
        """Return a sentence for each reason."""
        kinds = (('object', 'left out', self.dropped), ('object', 'changed', self.changed))
        return [
            f'{counted(len(examples), noun)} {verb}: {reason} ({some(examples)}).'
            for noun, verb, reasons in (*kinds, ('image', 'renamed', self.renamed))
            for reason, examples in reasons.items()
        ]


@dataclass
class DataSet:
    """Splits of annotated images, which are sorted by name."""

    root: Path
    """The folder of the source."""
    format: str
    """Name in the table ``FORMATS``."""
    found: str
    """Sentence on the files that were found."""
    classes: list[str] = field(default_factory=list)
    splits: dict[str, list[Record]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """Sentences on what was repaired, assumed or not read."""
    losses: Losses = field(default_factory=Losses)
    places: dict[str, Place] = field(default_factory=dict)
    """Files of the source, if a config can name them without a conversion."""
    values: Mapping | None = None
    """Maps each value or colour (red, green, blue) of label maps to a class index; 255 means ignored."""
    pixels: Counter[int] = field(default_factory=Counter)
    """Number of pixels of each class index in label maps. Binary masks are counted only when they are written."""

    def records(self) -> Iterator[Record]:
        """Yield the images of all splits."""
        for split in self.splits.values():
            yield from split

    def lines(self) -> list[str]:
        """Return what was found, and a sentence for each repair, assumption and loss."""
        return [self.found, *self.notes, *self.losses.lines()]


def counts(data: DataSet) -> dict[str, int]:
    """Return the numbers of images, objects, crowds and objects of each class, by their names in a table."""
    annotations = [annotation for record in data.records() for annotation in record.annotations]
    labels = Counter(annotation.label for annotation in annotations)
    result = {f'images of {split}': len(records) for split, records in data.splits.items()}
    result |= dict(objects=len(annotations), crowds=sum(annotation.crowd for annotation in annotations))
    result |= {'with polygons': sum(bool(annotation.polygons) for annotation in annotations)}
    result |= {'with masks': sum(annotation.rle is not None for annotation in annotations)}
    return result | {f'class {name}': labels[i] for i, name in enumerate(data.classes)}


def box_of(polygons: Sequence[Polygon]) -> Box:
    """Return the box around polygons."""
    xs = [x for polygon in polygons for x in polygon[0::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    return box_between(min(xs), min(ys), max(xs), max(ys))


def outlined(label: int, polygon: Polygon, origin: str) -> Annotation:
    """Return an object with one outline."""
    return Annotation(label, box_of([polygon]), (polygon,), origin=origin)


def elliptic(label: int, centre: Sequence[float], radii: Sequence[float], degrees: float, origin: str) -> Annotation:
    """Return an object with the box of an ellipse, and an outline that differs from it by at most 0.1 pixel."""
    (x, y), (radius_x, radius_y) = centre, radii
    count = max(12, min(2000, math.ceil(math.pi * math.sqrt(5) * math.sqrt(max(*radii, 0.0)))))  # points
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    points = []
    for i in range(count):
        u, v = radius_x * math.cos(2 * math.pi * i / count), radius_y * math.sin(2 * math.pi * i / count)
        points += [round(x + u * cosine - v * sine, 3), round(y + u * sine + v * cosine, 3)]
    half_width = math.hypot(radius_x * cosine, radius_y * sine)
    half_height = math.hypot(radius_x * sine, radius_y * cosine)
    box = box_between(x - half_width, y - half_height, x + half_width, y + half_height)
    return Annotation(label, box, (tuple(points),), origin=origin)


def masked(label: int, pixels: np.ndarray, origin: str) -> Annotation:
    """Return an object with a mask (H, W), whose run-length encoding has counts in text as in JSON files."""
    rle = _in_text(masks.encode(np.asfortranarray(pixels, np.uint8)))
    return Annotation(label, box_of_mask(rle), rle=rle, origin=origin)


def joined_groups(parts: Sequence[tuple[Any, Annotation]], height: int, width: int) -> list[Annotation]:
    """Return the objects of pairs (group, part): parts of one group that is not None are one object."""
    groups: dict[Any, list[Annotation]] = {}
    for i, (group, part) in enumerate(parts):
        groups.setdefault((i,) if group is None else (group, part.label), []).append(part)
    return [_joined(members, height, width) if len(members) > 1 else members[0] for members in groups.values()]


def _joined(parts: Sequence[Annotation], height: int, width: int) -> Annotation:
    polygons = tuple(polygon for part in parts for polygon in part.polygons)
    rles = [_compressed(part.rle) for part in parts if part.rle is not None]
    rle = None
    if rles:  # outlines and masks of one object become a mask
        merged = masks.merge(rles + (masks.frPyObjects([list(p) for p in polygons], height, width) if polygons else []))
        rle, polygons = _in_text(merged), ()
    corners = [(left, top, left + width, top + height) for left, top, width, height in (part.box for part in parts)]
    return replace(parts[0], box=box_of(corners), polygons=polygons, rle=rle)


def box_between(left: float, top: float, right: float, bottom: float) -> Box:
    """Return the box of two corners.

    Differences are rounded to 1e-6 pixel, so that 612.67 - 1.08 is 611.59, as in formats that store the width.
    """
    return Box(left, top, round(right - left, 6), round(bottom - top, 6))


def box_of_mask(rle: Mapping) -> Box:
    """Return the box around the pixels of a mask."""
    return Box(*map(float, masks.toBbox(_compressed(rle))))


def area_of(annotation: Annotation) -> float:
    """Return the area in the source, else that of the polygons, of the mask or of the box."""
    if annotation.area is not None:
        return annotation.area
    if annotation.rle is not None:
        return float(masks.area(_compressed(annotation.rle)))
    if annotation.polygons:
        return round(sum(abs(signed_area(polygon)) for polygon in annotation.polygons), 6)
    return round(annotation.box[2] * annotation.box[3], 6)


def check_mask(rle: Mapping, place: str) -> None:
    """Raise UserError if a run-length encoding is invalid."""
    try:
        masks.area(_compressed(rle))
        if isinstance(rle['counts'], list) and sum(rle['counts']) != rle['size'][0] * rle['size'][1]:
            raise ValueError(f'its runs have {sum(rle["counts"])} pixels')
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise UserError(f'{place} has an invalid run-length encoding ({error!r}); remove it.') from error


def _in_text(rle: Mapping) -> dict:
    """Return a run-length encoding of pycocotools with counts in text."""
    return dict(size=rle['size'], counts=rle['counts'].decode())


def _compressed(rle: Mapping) -> dict:
    """Return a run-length encoding as pycocotools requires it: compressed, with counts in bytes."""
    if isinstance(rle['counts'], list):
        return masks.frPyObjects(dict(rle), *rle['size'])
    return dict(size=rle['size'], counts=rle['counts'].encode())


def signed_area(polygon: Sequence[float]) -> float:
    """Return the area that a polygon encloses, negative if its points run counterclockwise in the image."""
    xs, ys = polygon[0::2], polygon[1::2]
    pairs = zip(xs, ys, (*xs[1:], xs[0]), (*ys[1:], ys[0]), strict=True)
    return sum(x * next_y - next_x * y for x, y, next_x, next_y in pairs) / 2
