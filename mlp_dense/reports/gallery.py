"""Images of a gallery: which ones are drawn, and their files."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as masks
from rich.progress import track

from ..datasets import Archive
from .page import IMAGES, DrawnObject, GalleryImage

LONGEST = 640  # maximum length of the longer side, in pixels
QUALITY = 85  # of JPEG

_open = lru_cache(maxsize=1)(Archive)  # an archive contains many images


@dataclass
class Job:
    """An image to draw; its objects have boxes in pixels of the source."""

    source: str  # file, or position in an archive (``FILE.npz/000001``)
    name: str
    caption: str
    tags: Sequence[tuple[int, str]]
    objects: Sequence[DrawnObject] = ()
    masks: Sequence[Any] = ()  # of pycocotools, one per object; empty without masks
    longest: int = LONGEST

    def drawn(self, target: Path, width: int, height: int, objects: Sequence[DrawnObject] = ()) -> GalleryImage:
        """Return the image of the gallery that was written to a file."""
        return GalleryImage(f'{IMAGES}/{target.name}', self.name, width, height, self.caption, self.tags, objects)


def choose(errors: Sequence[float] | np.ndarray, classes: Sequence[set[int]], limit: int) -> list[int]:
    """Choose at most `limit` images, sorted by their number of errors.

    The image with most errors of each class is taken in turn, then any image. `classes` are the classes per image.
    """
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    queues = defaultdict(list)
    for i in order:
        for label in classes[i]:
            queues[label].append(i)
    in_turn = [i for turn in zip_longest(*queues.values()) for i in turn if i is not None]
    chosen = list(dict.fromkeys([*in_turn, *order]))[:limit]
    return sorted(chosen, key=lambda i: -errors[i])


def draw_all(jobs: Sequence[Job], folder: Path, pool: Executor, draw: Callable | None = None) -> list[GalleryImage]:
    """Draw images into the folder of a report with ``draw(file, job)``, by default :func:`draw_scaled`.

    Unreadable images are skipped. Images of an earlier report that are not overwritten are removed.
    """
    images = folder / IMAGES
    images.mkdir(exist_ok=True)
    files = [images / f'{number:05}.jpg' for number in range(len(jobs))]
    for stale in set(images.glob('*.jpg')) - set(files):
        stale.unlink()
    drawn = track(pool.map(draw or draw_scaled, files, jobs, chunksize=8), 'drawing', len(jobs))
    return [image for image in drawn if image]


def draw_scaled(target: Path, job: Job) -> GalleryImage | None:
    """Write a scaled-down image; return None if it cannot be read."""
    if (image := read(job.source)) is None:
        return None
    scale = min(1.0, job.longest / max(image.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    write(target, cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
    objects = [replace(item, box=[round(value * scale, 1) for value in item.box]) for item in job.objects]
    if job.masks:
        outlines = [outline(mask, height, width) for mask in job.masks]
        objects = [replace(item, outline=path) for item, path in zip(objects, outlines, strict=True)]
    return job.drawn(target, width, height, objects)


def read(source: str) -> np.ndarray | None:
    """Read a BGR image (H, W, 3) from a file or an archive (``FILE.npz/000001``); return None if that fails."""
    path = Path(source)
    if path.parent.suffix == '.npz':
        content = np.frombuffer(_open(str(path.parent)).bytes_of(int(path.name)), np.uint8)
        return cv2.imdecode(content, cv2.IMREAD_COLOR)
    return cv2.imread(source, cv2.IMREAD_COLOR)


def write(target: Path, image: np.ndarray) -> None:
    """Write a BGR image (H, W, 3) as JPEG."""
    cv2.imwrite(str(target), image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def outline(mask: Any, height: int, width: int) -> str:
    """Return a mask of pycocotools as a path of SVG in an image of this size."""
    inside = cv2.resize(masks.decode(mask), (width, height), interpolation=cv2.INTER_NEAREST)
    contours = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    simplified = [cv2.approxPolyDP(contour, 0.8, closed=True)[:, 0].tolist() for contour in contours]
    return ''.join('M' + 'L'.join(f'{x} {y}' for x, y in points) + 'Z' for points in simplified if len(points) > 2)
