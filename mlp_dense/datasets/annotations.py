"""Repair of annotations in COCO's format, and the problems that remain."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from math import isfinite
from typing import Any, NamedTuple

from ..errors import UserError

with suppress(ImportError):  # without mmdet there are no such annotations
    from pycocotools import mask as mask_api

CROWDS = ('ignored', 'as-objects')
"""Values of the setting `crowds`: objects with ``iscrowd=1`` are ignored, or used like any other object."""

BOX = 'set bbox to left, top, width and height in pixels'
DATASET, METRIC = 'CocoDataset', 'CocoMetric'


class Problem(NamedTuple):
    """A kind of problem of annotations."""

    severity: str  # error, warning or note
    text: str  # continues '3 annotations'
    remedy: str = ''  # imperative clause
    usable: bool = False  # whether such an annotation is used for training
    repaired_by: str = ''  # type of mlp_dense that repairs it; the type of mmdet fails, or ignores the annotation

    @property
    def replacement(self) -> str:
        """The remedy for data sets and metrics of mmdet, an imperative clause."""
        return f"set type='mlp_dense.{self.repaired_by}', which repairs them"


UNKNOWN_IMAGE = Problem('warning', 'of an image that is not listed', 'add the images, or remove the annotations')
NO_BOX = Problem('warning', 'without a box', BOX, repaired_by=DATASET)
SMALL_BOX = Problem('warning', 'with a box smaller than a pixel', BOX)
FRACTIONS = Problem('warning', 'with a box in fractions of the image', BOX)
NO_AREA = Problem('warning', 'with an area of 0', 'remove `area` from them: then it is computed')
OUTSIDE = Problem('warning', 'outside of their image', 'correct bbox, or width and height of the images')
IGNORED = Problem('warning', 'marked with `ignore`, not used for training', 'remove `ignore` if they are objects')
CROWD = Problem(
    'note', 'marked with iscrowd, not used for training', 'train with --crowds as-objects if they are objects'
)
NO_POLYGON = Problem('error', 'without a polygon', 'use a RetinaNet config, or remove them')
FEW_POINTS = Problem(
    'warning', 'without a polygon of 3 points', 'draw the masks again, or remove these annotations', repaired_by=METRIC
)
RLE_SIZE = Problem('error', 'with an RLE of another size than their image', 'encode their masks again')
BEYOND = Problem('warning', 'with a box beyond their image', f'{BOX}, not to corners', True)
COPY = Problem('warning', 'that repeat another annotation', 'remove them', True)
NO_CROWD = Problem('note', 'without iscrowd, which counts as 0', '', True, METRIC)
NUMBERED = Problem('note', 'whose id is 0, repeated or not a number, and is replaced', '', True, METRIC)
REFERENCE = Problem('note', 'whose image_id or category_id has another type than the id', '', True, DATASET)
FLAG = Problem('note', 'whose iscrowd or ignore is not a number, and is converted', '', True, DATASET)
COMPUTED_AREA = Problem('note', 'without an area, which is computed', '', True, DATASET)
COMPUTED_BOX = Problem('note', 'without a box, which is computed from the mask', '', True, DATASET)
CONVERTED = Problem('note', 'whose mask has another form than in COCO, and is converted', '', True, DATASET)


def other_category(name: Any) -> Problem:
    """Return the problem of annotations of a category that is not a class of the data set."""
    if name is None:
        return Problem('warning', 'without a category_id', 'set category_id to the id of a category')
    text = f'of the category {name!r}, which is not a class of the data set'
    return Problem('warning', text, 'add it to metainfo.classes if it is a class')


class Repaired(NamedTuple):
    """Result of a repair."""

    usable: int  # number of annotations that are used for training
    problems: dict[Problem, tuple[int, list]]  # number of annotations, and the ids of three
    names: dict[Any, str]  # of the categories, by id


def repair(
    content: dict, classes: Collection[str] | None = None, masks: bool = False, crowds: str = 'ignored'
) -> Repaired:
    """Repair the annotations of :func:`read_coco` in place, so that data sets of mmdet and COCOeval accept them.

    In a correct file only the ids change, to 1, 2, ... Annotations without a box, an image or a class are removed. If
    `masks` are used, objects without a usable mask become crowds. `classes` are the names that count, by default all.
    """
    if crowds not in CROWDS:
        raise UserError(f'crowds is {crowds!r}; set {" or ".join(map(repr, CROWDS))}.')
    repairs = _Repairs(content, classes, masks, crowds)
    content['annotations'] = [annotation for annotation in content['annotations'] if repairs.keep(annotation)]
    for number, annotation in enumerate(content['annotations'], start=1):
        annotation['id'] = number
    problems = {problem: (len(ids), ids[:3]) for problem, ids in repairs.problems.items()}
    return Repaired(repairs.usable, problems, repairs.names)


class _Repairs:
    """Repairs of annotations, one after another, and their problems."""

    def __init__(self, content: dict, classes: Collection[str] | None, masks: bool, crowds: str):
        self.sizes = {image['id']: (image['width'], image['height']) for image in content['images']}
        self.names = {category['id']: category['name'] for category in content['categories']}
        self.classes = {i for i, name in self.names.items() if classes is None or name in classes}
        self.masks, self.crowds = masks, crowds
        self.problems: dict[Problem, list] = defaultdict(list)  # ids of the annotations
        self.usable = 0
        self._ids: set[int] = set()
        self._objects: set[tuple] = set()
        self._by_text: dict[str, dict[str, Any]] = {}

    def keep(self, annotation: Any) -> bool:
        """Repair an annotation and note its problems. Return False if it must be removed."""
        try:  # nearly all annotations pass this test, which is faster than `_examine`
            number, image, category = annotation['id'], annotation['image_id'], annotation['category_id']
            left, top, width, height = annotation['bbox']
            image_width, image_height = self.sizes[image]
            identity = (image, category, left, top, width, height)
            if (
                number.__class__ is int
                and number not in self._ids
                and number != 0
                and identity not in self._objects
                and category in self.classes
                and annotation['iscrowd'] == 0
                and annotation['area'] > 0
                and width >= 1
                and height >= 1
                and 0 <= left < image_width
                and 0 <= top < image_height
                and left + width <= image_width + 1
                and top + height <= image_height + 1
                and 'ignore' not in annotation
                and (not self.masks or _has_polygons(annotation['segmentation']))
            ):
                self._ids.add(number)
                self._objects.add(identity)
                self.usable += 1
                return True
        except (AttributeError, KeyError, TypeError, ValueError):
            pass
        number = annotation.get('id') if isinstance(annotation, dict) else str(annotation)[:40]
        found, keeps = self._examine(annotation)
        for problem in found:
            self.problems[problem].append(number)
        self.usable += all(problem.usable for problem in found)
        return keeps

    def _examine(self, annotation: Any) -> tuple[list[Problem], bool]:
        """Repair an annotation; return its problems, and whether the metric can count it."""
        if not isinstance(annotation, dict):
            return [NO_BOX], False
        number, found = annotation.get('id'), []
        if not isinstance(number, int) or number == 0 or number in self._ids:
            found.append(NUMBERED)
        else:
            self._ids.add(number)
        references = dict(image_id=self.sizes, category_id=self.names)
        if any([self._resolve(annotation, key, known) for key, known in references.items()]):  # both are resolved
            found.append(REFERENCE)
        image, category = annotation.get('image_id'), annotation.get('category_id')
        if not _is_key(image, self.sizes):
            return [*found, UNKNOWN_IMAGE], False
        if not _is_key(category, self.classes):
            name = self.names[category] if _is_key(category, self.names) else category
            return [*found, other_category(name)], False
        size = self.sizes[image]
        mask, is_converted = coco_mask(annotation.get('segmentation'), size)
        box = _numbers(annotation.get('bbox'))
        if box is None or len(box) != 4:
            if not mask or mask is RLE_SIZE:
                return [*found, NO_BOX], False
            box = _box_of(mask, size)
            found.append(COMPUTED_BOX)
        annotation['bbox'] = box
        found += self._flags(annotation)
        if not _is_number(annotation.get('area')):
            found.append(COMPUTED_AREA)
            has_mask = mask and mask is not RLE_SIZE
            annotation['area'] = float(mask_api.area(_rle(mask, size))) if has_mask else box[2] * box[3]
        found += _problems_of_box(box, annotation['area'], size)
        identity = (image, category, *box)
        if identity in self._objects:
            found.append(COPY)
        self._objects.add(identity)
        if self.masks:
            found += self._mask(annotation, mask, is_converted)
        return found, True

    def _resolve(self, annotation: dict, key: str, known: Mapping) -> bool:
        """Replace a reference by the id of equal text, for example '7' by 7; return whether it was replaced."""
        reference = annotation.get(key)
        if not isinstance(reference, (str, int)) or reference in known:
            return False
        if key not in self._by_text:
            self._by_text[key] = {str(i): i for i in known}
        if str(reference) not in self._by_text[key]:
            return False
        annotation[key] = self._by_text[key][str(reference)]
        return True

    def _flags(self, annotation: dict) -> list[Problem]:
        found = []
        for key in ('iscrowd', 'ignore'):
            value = annotation.get(key)
            if value is None and key == 'iscrowd':
                found.append(NO_CROWD)
            elif value is not None and not isinstance(value, (int, float)):
                found.append(FLAG)
            if key == 'iscrowd' or value is not None:
                annotation[key] = int(str(value or 0).strip().lower() not in ('0', '0.0', 'false', 'no', 'none', ''))
        if self.crowds == 'as-objects':
            annotation['iscrowd'] = 0
        return found + [problem for key, problem in (('iscrowd', CROWD), ('ignore', IGNORED)) if annotation.get(key)]

    def _mask(self, annotation: dict, mask: Any, is_converted: bool) -> list[Problem]:
        if mask is RLE_SIZE:
            return [RLE_SIZE]
        if mask:
            annotation['segmentation'] = mask
            return [CONVERTED] * is_converted
        is_missing = annotation.get('segmentation') in (None, '', [], [[]], {}) and not annotation['iscrowd']
        left, top, width, height = annotation['bbox']
        right, bottom = left + width, top + height
        annotation.update(segmentation=[[left, top, right, top, right, bottom, left, bottom]], iscrowd=1)
        return [NO_POLYGON if is_missing else FEW_POINTS]


def coco_mask(mask: Any, size: Sequence[float]) -> tuple[Any, bool]:
    """Return a mask as polygons or RLE in COCO's form, and whether it had another form.

    The mask is None if it is unusable, and RLE_SIZE if it is an RLE of another size than the image, (width, height).
    Polygons of fewer than three points are left out.
    """
    if isinstance(mask, dict):
        counts = mask.get('counts')
        if not counts or not isinstance(counts, (list, str)) or not _numbers(mask.get('size')):
            return None, False
        fits = list(mask['size']) == [*size][::-1] and (isinstance(counts, str) or sum(counts) == size[0] * size[1])
        return (mask if fits else RLE_SIZE), False
    if not isinstance(mask, list) or not mask:
        return None, False
    if all(isinstance(part, dict) for part in mask):
        parts = [coco_mask(part, size)[0] for part in mask]
        return (None if None in parts else RLE_SIZE if RLE_SIZE in parts else _merged(parts, size)), True
    is_flat = all(_is_number(part) for part in mask)
    is_of_points = all(isinstance(part, (list, tuple)) and len(part) == 2 for part in mask)
    polygons = []
    for part in [mask] if is_flat or is_of_points else mask:
        numbers = _numbers(part)
        if numbers and len(numbers) >= 6 and not len(numbers) % 2:
            polygons.append(numbers)
    return polygons or None, any(polygon not in mask for polygon in polygons)


def _has_polygons(mask: Any) -> bool:
    """Whether a mask consists of polygons of at least three points in COCO's form; TypeError if it has no numbers."""
    return isinstance(mask, list) and bool(mask) and all(
        len(polygon) >= 6 and not len(polygon) % 2 and isfinite(sum(polygon)) for polygon in mask
    )  # fmt: skip


def _problems_of_box(box: Sequence[float], area: float, size: Sequence[float]) -> list[Problem]:
    left, top, width, height = box
    if width < 1 or height < 1:
        return [FRACTIONS if 0 < width <= 1 and 0 < height <= 1 and 0 <= left <= 1 and 0 <= top <= 1 else SMALL_BOX]
    if min(left + width, size[0]) <= max(left, 0) or min(top + height, size[1]) <= max(top, 0):
        return [OUTSIDE]
    if area <= 0:
        return [NO_AREA]
    overhang = max(-left, -top, left + width - size[0], top + height - size[1])
    return [BEYOND] if overhang > 1 else []


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def _is_key(value: Any, known: Collection) -> bool:
    return isinstance(value, (str, int, float)) and value in known


def _numbers(items: Any) -> list[float] | None:
    """Return the numbers of a flat list or of points (x, y); None if it contains something else.

    Numbers keep their type, and may be given as text.
    """
    if not isinstance(items, (list, tuple)):
        return None
    nested = [item if isinstance(item, (list, tuple)) else [item] for item in items]
    try:
        flat = [value if _is_number(value) else float(value) for values in nested for value in values]
    except (TypeError, ValueError):
        return None
    return flat if all(map(isfinite, flat)) else None


def _rle(mask: Any, size: Sequence[float]) -> Any:
    if isinstance(mask, dict):
        return mask_api.frPyObjects(mask, size[1], size[0]) if isinstance(mask['counts'], list) else mask
    return mask_api.merge(mask_api.frPyObjects(mask, size[1], size[0]))


def _merged(parts: Sequence[dict], size: Sequence[float]) -> dict:
    """Return the union of masks in RLE."""
    merged = mask_api.merge([_rle(part, size) for part in parts])
    return dict(merged, counts=merged['counts'].decode())


def _box_of(mask: Any, size: Sequence[float]) -> list[float]:
    if isinstance(mask, dict):
        return mask_api.toBbox(_rle(mask, size)).tolist()
    xs, ys = ([value for polygon in mask for value in polygon[start::2]] for start in (0, 1))
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
