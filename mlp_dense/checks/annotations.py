"""Checks of annotation files in COCO's format."""

import json
import mmap
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

from ..errors import UserError

INVALID_NUMBER = re.compile(rb'(?<=[\[,:\s])-?(?:NaN|Infinity|\d[\d.]*[eE]\+?\d{3,})(?=[\s,\]}])')


def check_numbers(file: Path) -> None:
    """Raise UserError if a file contains NaN or infinity, which exhaust the memory of pycocotools or crash it.

    The file is searched without parsing it.
    """
    if not file.stat().st_size:
        raise UserError(f'{file} is empty; is it complete?')
    with file.open('rb') as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as text:
        if match := INVALID_NUMBER.search(text):
            around = bytes(text[max(match.start() - 60, 0) : match.end() + 20]).decode(errors='replace')
            raise UserError(f'{file} contains {match[0].decode()} at byte {match.start()} ({around!r}); correct it.')


def category_names(file: Path | None) -> list[str]:
    """Return the class names in an annotation file, in its order; none if it is not in COCO's format."""
    try:
        content = json.loads(file.read_bytes()) if file and file.suffix == '.json' else {}
        return [category['name'] for category in content.get('categories', ())]
    except (AttributeError, KeyError, OSError, TypeError, ValueError):
        return []


def ignored_annotations(content: Mapping, categories: Collection[int]) -> dict[str, list]:
    """Return the ids of the annotations that mmdet's CocoDataset ignores silently, by the reason.

    Args:
        content: of the annotation file; ``images`` have a ``width`` and a ``height`` in pixels.
        categories: the ids of those that belong to the classes of the data set.
    """
    images = {image['id']: image for image in content['images']}
    names = {category.get('id'): category.get('name') for category in content.get('categories', ())}
    reasons: dict[str, list] = defaultdict(list)
    for annotation in content.get('annotations', ()):
        image, category = images.get(annotation.get('image_id')), annotation.get('category_id')
        x, y, width, height = annotation.get('bbox') or (0, 0, 0, 0)
        if image is None:
            reason = 'of an image that is not listed'
        elif category not in categories:
            reason = f'of the category {names.get(category, category)!r}, which is not a class of the data set'
        elif width < 1 or height < 1 or annotation.get('area', 1) <= 0:
            reason = 'with a box smaller than a pixel or without a box'
        elif min(x + width, image['width']) <= max(x, 0) or min(y + height, image['height']) <= max(y, 0):
            reason = 'outside of their image'
        else:
            continue
        reasons[reason].append(annotation.get('id'))
    return dict(reasons)
