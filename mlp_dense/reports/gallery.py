"""Images of a gallery: which ones are drawn, and their files."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as masks
from rich.progress import track

from ..datasets.archive import Archive
from .page import IMAGES, GalleryImage

LONGEST = 640  # maximum length of the longer side, in pixels
QUALITY = 85  # of JPEG


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


def draw_all(
    gallery: Sequence[GalleryImage], folder: Path, pool: Executor, draw: Callable | None = None
) -> list[GalleryImage]:
    """Draw images into the folder of a report with ``draw(file, image)``, by default :func:`draw_scaled`.

    Unreadable images are skipped. Images of an earlier report are removed.
    """
    images = folder / IMAGES
    images.mkdir(exist_ok=True)
    for stale in images.glob('*.jpg'):
        stale.unlink()
    files = [images / f'{number:05}.jpg' for number in range(len(gallery))]
    drawn = track(pool.map(draw or draw_scaled, files, gallery, chunksize=8), 'drawing', len(gallery))
    return [image for image in drawn if image]


def draw_scaled(target: Path, image: GalleryImage) -> GalleryImage | None:
    """Write a scaled-down image; return None if it cannot be read."""
    if (pixels := read(image.source)) is None:
        return None
    scale = min(1.0, LONGEST / max(pixels.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    objects = [
        replace(
            item,
            box=[round(value * scale, 1) for value in item.box],
            outline=item.outline and outline(item.outline, height, width),
        )
        for item in image.objects
    ]
    return written(target, pixels, replace(image, objects=objects))


def written(target: Path, pixels: np.ndarray, image: GalleryImage) -> GalleryImage:
    """Write a BGR image (H, W, 3) as JPEG, and return its record."""
    cv2.imwrite(str(target), pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    height, width = pixels.shape[:2]
    return replace(image, file=f'{IMAGES}/{target.name}', width=width, height=height)


def read(source: str) -> np.ndarray | None:
    """Read a BGR image (H, W, 3) from a file or an archive (``FILE.npz/000001``); return None if that fails."""
    path = Path(source)
    if path.parent.suffix == '.npz':
        content = np.frombuffer(Archive.opened(str(path.parent)).bytes_of(int(path.name)), np.uint8)
        return cv2.imdecode(content, cv2.IMREAD_COLOR)
    return cv2.imread(source, cv2.IMREAD_COLOR)


def outline(mask: Any, height: int, width: int) -> str:
    """Return a mask of pycocotools as a path of SVG in an image of this size."""
    inside = cv2.resize(masks.decode(mask), (width, height), interpolation=cv2.INTER_NEAREST)
    contours = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    simplified = [cv2.approxPolyDP(contour, 0.8, closed=True)[:, 0].tolist() for contour in contours]
    return ''.join('M' + 'L'.join(f'{x} {y}' for x, y in points) + 'Z' for points in simplified if len(points) > 2)
