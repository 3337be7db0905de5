"""Sizes of objects at the image size of a config, compared with the strides of its pyramid."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from mmengine.config import Config

from ..config.config_file import walk
from .findings import Finding

STRIDES = (4, 8, 16, 32, 64)
"""Strides without a config: those of an FPN of five levels."""

MAX_VANISHED = 0.01  # fraction of the objects


def strides_of(cfg: Config) -> list[int]:
    """Return the strides of the anchors or points of a detector, by default STRIDES."""
    for path, _, key, value in walk(cfg.get('model') or {}):
        if key == 'strides' and 'generator' in path and all(isinstance(stride, int) for stride in value):
            return sorted(value)
    return list(STRIDES)


def scaled_sides(sizes: Sequence[Sequence[float]], scale: tuple[int, int] | None) -> np.ndarray:
    """Return the square root of the areas of objects, after a resize of their images to `scale`.

    `sizes` are rows of width and height of the object, then of its image.
    """
    width, height, image_width, image_height = np.array(sizes, float).reshape(-1, 4).T
    factor = np.ones(len(width))
    if scale is not None:
        long, short = np.maximum(image_width, image_height), np.minimum(image_width, image_height)
        with np.errstate(divide='ignore', invalid='ignore'):
            factor = np.nan_to_num(np.minimum(scale[0] / long, scale[1] / short), nan=1, posinf=1)
    return np.sqrt(np.maximum(width * height, 0)) * factor


def histogram(sides: np.ndarray, strides: Sequence[int]) -> dict[str, int]:
    """Return the number of objects between the strides, by range in pixels."""
    edges = [0, *strides, np.inf]
    counts = np.histogram(sides, edges)[0].tolist()
    names = [f'below {strides[0]}', *(f'{low} to {high}' for low, high in pairwise(strides))]
    return dict(zip([*names, f'from {strides[-1]}'], counts, strict=True))


def vanishing(name: str, sides: np.ndarray, strides: Sequence[int]) -> Iterator[Finding]:
    """Yield the objects that are smaller than a cell of the finest level."""
    if count := int((sides < strides[0]).sum()):
        severity = 'warning' if count > MAX_VANISHED * len(sides) else 'note'
        problem = f'objects are smaller than the smallest stride ({strides[0]} pixels) at the tested image size'
        remedy = 'train with a larger --img-scale, or cut the images into tiles'
        yield Finding(severity, name, problem, count, (), remedy)
