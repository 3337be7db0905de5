"""What is wrong in annotation files of COCO's form."""

import mmap
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ..errors import UserError

NO_NUMBER = re.compile(rb'(?<=[\[,:\s])-?(?:NaN|Infinity|\d[\d.]*[eE]\+?\d{3,})(?=[\s,\]}])')


def check_numbers(file: Path) -> None:
    """UserError: a file holds NaN or infinity, with which pycocotools takes all memory or crashes. It is not parsed."""
    if not file.stat().st_size:
        raise UserError(f'{file} is empty; is it complete?')
    with file.open('rb') as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as text:
        if found := NO_NUMBER.search(text):
            around = bytes(text[max(found.start() - 60, 0) : found.end() + 20]).decode(errors='replace')
            raise UserError(f'{file} holds {found[0].decode()} at byte {found.start()} ({around!r}); correct it.')


def left_out(
    images: Mapping[int, Mapping], annotations: Sequence[Mapping], categories: Collection[int]
) -> dict[str, list]:
    """The ids of the annotations that mmdet's CocoDataset leaves out without a word, by the reason.

    Args:
        images: by id, with their ``width`` and ``height`` in pixels.
        categories: the ids of those that belong to the classes of the data set.
    """
    reasons, categories = defaultdict(list), set(categories)
    for annotation in annotations:
        image = images.get(annotation.get('image_id'))
        x, y, width, height = annotation.get('bbox') or (0, 0, 0, 0)
        if image is None:
            reason = 'of an image that is not listed'
        elif annotation.get('category_id') not in categories:
            reason = 'of another category'
        elif width < 1 or height < 1 or annotation.get('area', 1) <= 0:
            reason = 'with a box smaller than a pixel, or none'
        elif min(x + width, image['width']) <= max(x, 0) or min(y + height, image['height']) <= max(y, 0):
            reason = 'outside of their image'
        else:
            continue
        reasons[reason].append(annotation.get('id'))
    return dict(reasons)
