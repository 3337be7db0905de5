"""The pictures of a report: the images, smaller."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as masks

from ..datasets.archive import Archive

LONGEST = 640  # pixels of the longer side
QUALITY = 85  # of JPEG


def read(source: str) -> np.ndarray | None:
    """A BGR image (H, W, 3) from a file, or from a place in an archive (``FILE.npz/000001``); None: it cannot be
    read."""
    path = Path(source)
    if path.parent.suffix == '.npz':
        content = np.frombuffer(Archive.opened(str(path.parent)).bytes_of(int(path.name)), np.uint8)
        return cv2.imdecode(content, cv2.IMREAD_COLOR)
    return cv2.imread(source, cv2.IMREAD_COLOR)


def shrunk(source: str, target: Path, longest: int = LONGEST) -> tuple[int, int, float] | None:
    """Writes an image with at most so many pixels on its longer side; returns height, width and the factor. None: it
    cannot be read."""
    if (image := read(source)) is None:
        return None
    scale = min(1.0, longest / max(image.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    write(target, cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
    return height, width, scale


def write(target: Path, image: np.ndarray) -> None:
    """A BGR image (H, W, 3) as JPEG."""
    cv2.imwrite(str(target), image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def outline(mask: Any, height: int, width: int) -> str:
    """A mask of pycocotools as a path of SVG, in a picture of this size."""
    inside = cv2.resize(masks.decode(mask), (width, height), interpolation=cv2.INTER_NEAREST)
    contours = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    thinned = [cv2.approxPolyDP(contour, 0.8, closed=True)[:, 0].tolist() for contour in contours]
    return ''.join('M' + 'L'.join(f'{x} {y}' for x, y in points) + 'Z' for points in thinned if len(points) > 2)
