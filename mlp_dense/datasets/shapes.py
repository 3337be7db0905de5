"""Generated data set: procedural images of overlapping shapes, for detection and segmentation.

A seed determines all images. Writing them takes seconds, so that trials and tests need no download::

    root/{train,val}/000000.jpg                    images
    root/annotations/instances_{train,val}.json    COCO instances: polygons and areas of the visible regions
    root/labels/{train,val}/000000.png             label maps as in ADE20K: 1 is the first class, 0 unlabelled

For classification every image contains one shape::

    root/{train,val}/{disc,square,triangle,star,cross}/000000.jpg

Images of more bands are TIFFs of 16 bits (``000000.tif``): red, green and blue, then infrared bands, which alone
distinguish the first two classes.
"""

import colorsys
import json
import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from ..errors import UserError, explained_imports
from .image_files import write_image

CLASSES = ('disc', 'square', 'triangle', 'star', 'cross')
"""Classes of the objects. In the label maps label 1 is the background, and the classes follow."""

BAND_CLASSES = ('cold disc', 'warm disc', *CLASSES[2:])
"""Classes of the objects in images of more than three bands. Both discs look the same in red, green and blue."""

JPEG = cv2.IMWRITE_JPEG_QUALITY, 95  # options of OpenCV
_ZOOM = 4  # shapes are drawn at this multiple of the image size and averaged, so that their edges are smooth


def write_shapes(
    root: Path,
    num_train: int = 320,
    num_val: int = 64,
    size: int = 128,
    seed: int = 0,
    classify: bool = False,
    bands: int = 3,
) -> None:
    """Write images of `size` x `size` pixels and their labels, with `classify` into one folder per class."""
    if bands != 3 and (classify or not 4 <= bands <= 12):
        raise UserError(f'Images of {bands} bands: set 4 to 12 bands, without folders of classes.')
    if bands > 3:
        with explained_imports():
            import tifffile  # noqa: F401  an error before anything is written
    if min(num_train, num_val) < 1 or size < 16 or seed < 0:
        raise UserError('Set at least 1 image for training and 1 for validation, 16 pixels or more, a seed from 0.')
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        problem = 'not empty' if root.is_dir() else 'a file'
        raise UserError(f'{root} is {problem}; choose another folder, or delete it first.')
    unfinished = root.with_name(f'.{root.name}.{os.getpid()}.unfinished')  # a killed call leaves no incomplete data set
    try:
        unfinished.mkdir(parents=True)
        try:
            write = _write_classes if classify else partial(_write_split, bands=bands)
            for split, (name, count) in enumerate((('train', num_train), ('val', num_val))):
                write(unfinished, name, count, size, (seed, split))
            unfinished.replace(root)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise UserError(f'{root} cannot be written ({error}); choose another folder.') from error


def make_scene(
    rng: np.random.Generator, size: int, shapes: Sequence[str] = CLASSES
) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Return an image (size, size, 3) as uint8 in BGR, and pairs (class, visible mask) of its objects.

    Masks are bool (size, size), do not overlap, and have no holes. `shapes` are the names of the shapes of the classes.
    """
    image = _background(rng, size)
    objects: list[tuple[int, np.ndarray, int]] = []  # class, visible mask, area including covered pixels
    count = 0 if rng.random() < 0.08 else rng.integers(1, 7)
    # Draw large objects first, so that small ones stay visible.
    radii = sorted((size * rng.choice([0.1, 0.17, 0.29]) * rng.uniform(0.85, 1.2) for _ in range(count)), reverse=True)
    for radius in radii:
        for _ in range(10):  # attempts to place the object
            label = int(rng.integers(len(CLASSES)))
            coverage = _coverage(_outline(shapes[label], rng, radius, size), size)
            mask = coverage > 0.5
            remaining = [(c, visible & ~mask, area) for c, visible, area in objects]
            # No object is mostly hidden, and no mask has a hole, which COCO polygons cannot represent.
            if all(visible.sum() > 0.4 * area and not _has_hole(visible) for _, visible, area in remaining):
                objects = [*remaining, (label, mask, int(mask.sum()))]
                image = _paint(rng, image, coverage, CLASSES.index(shapes[label]))
                break
    return _with_noise(rng, image), [(label, mask) for label, mask, _ in objects]


def make_band_scene(rng: np.random.Generator, size: int, bands: int) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Return an image (size, size, bands) as uint16 from 0 to 10000, and the objects of :data:`BAND_CLASSES`.

    The bands are red, green, blue, then infrared ones, in which a cold disc is dark and a warm disc bright.
    """
    shapes = [name.rpartition(' ')[2] for name in BAND_CLASSES]
    image, objects = make_scene(rng, size, shapes)
    infrared = np.ones((size, size, 1)) * rng.uniform(0.3, 0.7, bands - 3)
    for label, mask in objects:
        low, high = {0: (0.0, 0.2), 1: (0.8, 1.0)}.get(label, (0.3, 0.7))
        infrared[mask] = rng.uniform(low, high, bands - 3)
    infrared += rng.normal(0, 0.03, infrared.shape)
    values = np.concatenate([image[..., ::-1] / 255, infrared], axis=2)
    return (10000 * np.clip(values, 0, 1)).astype(np.uint16), objects


def _write_classes(root: Path, split: str, count: int, size: int, seed: tuple[int, int]) -> None:
    for index in range(count):
        label = index % len(CLASSES)
        file = root / split / CLASSES[label] / f'{index:06}.jpg'
        rng = np.random.default_rng((*seed, index))
        image, radius = _background(rng, size), size * rng.uniform(0.2, 0.45)
        image = _paint(rng, image, _coverage(_outline(CLASSES[label], rng, radius, size), size), label)
        write_image(file, _with_noise(rng, image), JPEG)


def _write_split(root: Path, split: str, count: int, size: int, seed: tuple[int, int], bands: int) -> None:
    suffix, classes = ('.jpg', CLASSES) if bands == 3 else ('.tif', BAND_CLASSES)
    for folder in (root / split, root / 'annotations'):
        folder.mkdir(parents=True, exist_ok=True)
    images = [dict(id=index, file_name=f'{index:06}{suffix}', height=size, width=size) for index in range(count)]
    annotations: list[dict] = []
    for index in range(count):
        rng = np.random.default_rng((*seed, index))
        image, objects = make_scene(rng, size) if bands == 3 else make_band_scene(rng, size, bands)
        labels = np.ones((size, size), np.uint8)
        for label, mask in objects:
            labels[mask] = label + 2
            rows, columns = np.nonzero(mask)
            left, top = int(columns.min()), int(rows.min())
            bbox = [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top]
            ids = dict(id=len(annotations) + 1, image_id=index, category_id=label + 1)
            annotations.append(dict(ids, segmentation=_polygons(mask), area=int(mask.sum()), bbox=bbox, iscrowd=0))
        _write_image(root / split / f'{index:06}{suffix}', image)
        write_image(root / 'labels' / split / f'{index:06}.png', labels)
    categories = [dict(id=i, name=name, supercategory='shape') for i, name in enumerate(classes, start=1)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))


def _write_image(file: Path, image: np.ndarray) -> None:
    if file.suffix == '.jpg':
        write_image(file, image, JPEG)
        return
    import tifffile

    tifffile.imwrite(file, image, photometric='minisblack', planarconfig='contig', metadata=None)


def _outline(shape: str, rng: np.random.Generator, radius: float, size: int) -> np.ndarray:
    """Return the corners (N, 2) in pixels of a shape of about the given radius at a random position and angle."""
    arms = np.array([(1, 3), (1, 1), (3, 1), (3, -1), (1, -1), (1, -3)]) / 3.2
    points = dict(disc=40, square=4, triangle=3, star=10)
    corners = _star_corners(points[shape], 0.45 if shape == 'star' else 1.0) if shape in points else np.r_[arms, -arms]
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.array([1.0, rng.uniform(0.8, 1.0)])
    centre = rng.uniform(0.6 * radius, size - 0.6 * radius, 2)
    return (corners * stretch * radius) @ turn.T + centre


def _star_corners(count: int, inner: float) -> np.ndarray:
    """Return `count` points around the unit circle. Every other point has the radius `inner`."""
    angles = np.arange(count) * 2 * np.pi / count
    radii = np.where(np.arange(count) % 2, inner, 1.0)
    return np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]


def _coverage(outline: np.ndarray, size: int) -> np.ndarray:
    """Return the fraction (size, size) of every pixel that is inside an outline."""
    canvas = np.zeros((size * _ZOOM, size * _ZOOM), np.float32)
    cv2.fillPoly(canvas, [np.round(outline * _ZOOM).astype(np.int32)], 1.0)
    return canvas.reshape(size, _ZOOM, size, _ZOOM).mean((1, 3))


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    return _texture(rng, size, _colour(rng.random(), rng.uniform(0.0, 0.3), rng.uniform(0.3, 0.9)))


def _with_noise(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def _paint(rng: np.random.Generator, image: np.ndarray, coverage: np.ndarray, label: int) -> np.ndarray:
    """Paint a shape of a class with a soft shadow on the image."""
    # Classes differ in shape. Their hues overlap, and the background is paler.
    hue = (label + rng.uniform(-0.55, 0.55)) / len(CLASSES) % 1.0
    texture = _texture(rng, len(image), _colour(hue, rng.uniform(0.5, 1.0), rng.uniform(0.5, 1.0)))
    x, y = rng.uniform(1, 4, 2)
    shift = np.array([[1, 0, x], [0, 1, y]], np.float32)
    shadow = cv2.GaussianBlur(cv2.warpAffine(coverage, shift, coverage.shape), (0, 0), 2)
    image = image * (1 - 0.35 * shadow[..., None])
    return image + coverage[..., None] * (texture - image)


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """Return the BGR values of a colour whose hue, saturation and value are between 0 and 1."""
    return 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value)[::-1])


def _texture(rng: np.random.Generator, size: int, colour: np.ndarray) -> np.ndarray:
    """Return an image (size, size, 3) of a random pattern in a colour (3,) and a similar one, with a light gradient."""
    ys, xs = np.mgrid[:size, :size] / size
    angle, frequency = rng.uniform(0, 2 * np.pi), rng.uniform(4, 14)
    u, v = xs * np.cos(angle) + ys * np.sin(angle), ys * np.cos(angle) - xs * np.sin(angle)
    patterns = (
        lambda: np.zeros_like(u),
        lambda: 0.5 + 0.5 * np.sin(2 * np.pi * frequency * u),
        lambda: ((np.floor(frequency * u) + np.floor(frequency * v)) % 2),
        lambda: cv2.GaussianBlur(rng.random((size, size)), (0, 0), size / frequency / 3),
    )
    pattern = patterns[rng.integers(len(patterns))]()
    pattern = (pattern - pattern.min()) / max(np.ptp(pattern), 1e-6)
    second = np.clip(colour * rng.uniform(0.6, 1.3, 3), 0, 255)
    light = 1 + rng.uniform(0.05, 0.35) * (u - u.mean())
    return ((colour + (second - colour) * pattern[..., None]) * light[..., None]).astype(np.float32)


def _has_hole(mask: np.ndarray) -> bool:
    contours, hierarchy = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return bool(contours) and bool((hierarchy[0, :, 3] >= 0).any())


def _polygons(mask: np.ndarray) -> list[list[float]]:
    """Return the outlines of a mask as COCO polygons. An enlarged mask is traced, so they follow the pixels' edges."""
    enlarged = mask.astype(np.uint8).repeat(_ZOOM, 0).repeat(_ZOOM, 1)
    contours, _ = cv2.findContours(enlarged, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outlines = ((cv2.approxPolyDP(contour, _ZOOM / 2, True)[:, 0] + 0.5) / _ZOOM for contour in contours)
    return [np.round(outline, 2).ravel().tolist() for outline in outlines if len(outline) >= 3]
