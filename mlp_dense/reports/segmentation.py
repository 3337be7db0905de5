"""The report of a segmentor."""

import json
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.structures import PixelData
from rich.progress import track

from ..errors import UserError
from ..visualization.drawing import colours, draw_label_map, draw_labels, enlarged_size
from .gallery import LONGEST, choose, draw_all, read, write
from .page import Gallery, Picture, Report, Table
from .plots import confusion_sections
from .results import Results

BAND = 0.02  # of the diagonal: how far from a boundary a pixel is near it (Cheng et al., arXiv 2103.16562)
SIZES = {'small': 32**2, 'medium': 96**2, 'large': None}  # regions of less than so many pixels
WRONG = (64, 64, 230)  # BGR


@dataclass
class Image:
    """What was counted in an image of C classes, of the pixels that have one."""

    name: str
    confusion: np.ndarray  # (C, C), rows of the ground truth
    near: np.ndarray  # the same of the pixels near boundaries
    sizes: np.ndarray  # (C, sizes, 4): regions, those of which at least half is right, pixels, right pixels

    @property
    def wrong(self) -> float:
        """The share of its pixels."""
        total = self.confusion.sum()
        return 1 - np.trace(self.confusion) / total if total else 0.0


def read_images(results: Results, pool: Executor) -> list[Image]:
    """Counts in all images. UserError: label maps are absent."""
    file = results.file('images.json')
    if not file.is_file():
        raise UserError(f'{file} does not exist; test again with --report.')
    jobs = sorted(json.loads(file.read_text(encoding='utf-8')).items())
    count = partial(count_image, results=results)
    return list(track(pool.map(count, jobs, chunksize=8), 'counting', len(jobs)))


def label_maps(results: Results, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Ground truth and prediction, (H, W) each; C where there is no class."""
    truth, found = (
        cv2.imread(str(results.file(side, f'{name}.png')), cv2.IMREAD_UNCHANGED) for side in ('truth', 'labels')
    )
    if truth is None or found is None:
        raise UserError(f'{results.file("labels", name)}.png or its ground truth cannot be read; test again.')
    classes = len(results.classes)
    truth = np.where(truth == results.ignore_index, classes, truth.astype(int))
    return np.minimum(truth, classes), found.astype(int)


def count_image(job: tuple[str, str], results: Results) -> Image:
    name, classes = job[0], len(results.classes)
    truth, found = label_maps(results, name)
    known = truth < classes

    def counted(where: np.ndarray) -> np.ndarray:
        pairs = np.bincount(truth[where] * classes + found[where], minlength=classes**2)
        return pairs.reshape(classes, classes)

    band = max(1.0, BAND * np.hypot(*truth.shape))
    near = known & (distance_to_boundary(truth, known) <= band)
    sizes, limits = np.zeros((classes, len(SIZES), 4), dtype=int), list(SIZES.values())[:-1]
    for label in np.unique(truth[known]):
        inside = (truth == label).astype(np.uint8)
        number, regions = cv2.connectedComponents(inside, connectivity=8)
        pixels = np.bincount(regions.ravel(), minlength=number)[1:]
        right = np.bincount(regions[found == label], minlength=number)[1:]
        values = np.stack([np.ones_like(pixels), 2 * right >= pixels, pixels, right], axis=1)
        np.add.at(sizes[label], np.searchsorted(limits, pixels, side='right'), values)
    return Image(name, counted(known), counted(near), sizes)


def distance_to_boundary(labels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """In pixels, of each pixel to the next that has a neighbour of another class; infinite without any."""
    boundary = np.zeros(labels.shape, dtype=np.uint8)
    for axis in (0, 1):
        before, after = (
            tuple(slice(*ends) if i == axis else slice(None) for i in (0, 1)) for ends in ((-1,), (1, None))
        )
        differ = (labels[before] != labels[after]) & known[before] & known[after]
        boundary[before] |= differ
        boundary[after] |= differ
    if not boundary.any():
        return np.full(labels.shape, np.inf)
    return cv2.distanceTransform(1 - boundary, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def iou(confusion: np.ndarray) -> np.ndarray:
    """(C,), NaN for a class that is neither there nor found."""
    with np.errstate(invalid='ignore'):
        return np.diag(confusion) / (confusion.sum(0) + confusion.sum(1) - np.diag(confusion))


def report(results: Results, score_thr: float, limit: int, pool: Executor) -> Report:
    """The report of a test; `limit` pictures are drawn, of every class its worst."""
    images = read_images(results, pool)
    total, near = (sum(getattr(image, name) for image in images) for name in ('confusion', 'near'))
    sizes = sum(image.sizes for image in images)
    with np.errstate(invalid='ignore'):
        accuracy, precision = np.diag(total) / total.sum(1), np.diag(total) / total.sum(0)
        found_regions, right_pixels = sizes[..., 1] / sizes[..., 0], sizes[..., 3] / sizes[..., 2]
    columns = [
        ('class', '', None),
        ('IoU', 'intersection over union', 3),
        ('accuracy', 'share of the pixels of the class that are right', 3),
        ('precision', 'share of the pixels that are taken for it that are right', 3),
        ('IoU near boundaries', f'within {BAND:g} of the diagonal of the image', 3),
        ('IoU elsewhere', '', 3),
        *((f'{name} regions found', 'share of which at least half is right', 3) for name in SIZES),
        ('pixels', 'share of all', 3),
    ]
    ious = iou(total), iou(near), iou(total - near)
    share = total.sum(1) / max(total.sum(), 1)
    rows = [
        [name, ious[0][i], accuracy[i], precision[i], ious[1][i], ious[2][i], *found_regions[i], share[i]]
        for i, name in enumerate(results.classes)
    ]
    summed = sizes.sum(0)
    regions = [
        [name, f'from {[0, *SIZES.values()][i] or 1} pixels on', int(n), found / max(n, 1), right / max(pixels, 1)]
        for i, (name, (n, found, pixels, right)) in enumerate(zip(SIZES, summed, strict=True))
    ]
    region_columns = [
        ('regions', 'connected pixels of one class in the ground truth', None),
        ('size', '', None),
        ('number', '', 0),
        ('found', 'share of which at least half is right', 3),
        ('right pixels', 'share', 3),
    ]
    sections = [
        Table('Classes', 'What a column means appears over its head.', columns, rows, sort=1),
        _gallery(results, images, limit, pool),
        Table('Regions by size', '', region_columns, regions),
        *confusion_sections(total, results.classes, 'Pixels.'),
    ]
    numbers = dict(
        mIoU=np.nanmean(ious[0]),
        mAcc=np.nanmean(accuracy),
        aAcc=np.trace(total) / max(total.sum(), 1),
        mIoU_near_boundaries=np.nanmean(ious[1]),
        mIoU_elsewhere=np.nanmean(ious[2]),
        right_pixels={name: right_pixels[:, i] for i, name in enumerate(SIZES)},
        confusion=total,
    )
    return Report(results.name, results.facts(len(images)), sections, numbers)


def _gallery(results: Results, images: Sequence[Image], limit: int, pool: Executor) -> Gallery:
    sources = json.loads(results.file('images.json').read_text(encoding='utf-8'))
    off = [image.confusion * (1 - np.eye(len(image.confusion), dtype=int)) for image in images]
    tags = [
        sorted({(int(i), 0) for i in np.flatnonzero(each.sum(1))} | {(int(i), 1) for i in np.flatnonzero(each.sum(0))})
        for each in off
    ]
    chosen = choose([image.wrong for image in images], [{i for i, kind in each if not kind} for each in tags], limit)
    jobs = []
    for i in chosen:
        worst = np.argsort(-off[i], axis=None, kind='stable')[:3]
        pairs = [np.unravel_index(place, off[i].shape) for place in worst]
        taken = [
            f'{results.classes[a]} taken for {results.classes[b]}: {100 * off[i][a, b] / off[i].sum():.0f} %'
            for a, b in pairs
            if off[i][a, b]
        ]
        caption = f'{100 * images[i].wrong:.1f} % of the pixels wrong' + (
            f', of these {"; ".join(taken)}' if taken else ''
        )
        name = images[i].name
        jobs.append((sources[name], name, caption, tags[i]))
    drawn = draw_all(partial(draw, results=results), jobs, results.folder, pool)
    note = (
        f'{len(jobs)} of {len(images)} images: of every class the worst in turn, ordered by the share of wrong pixels. '
        'Image, ground truth, prediction, and what is wrong in red.'
    )
    kinds = [('wrongly left out', '#4477aa'), ('wrongly found', '#ee3333')]
    return Gallery('Images', note, list(results.classes), kinds, drawn)


def draw(target: Path, job: tuple, results: Results) -> Picture | None:
    """Image, ground truth, prediction and errors in one picture; None: the image cannot be read."""
    source, name, caption, tags = job
    if (image := read(source)) is None:
        return None
    truth, found = label_maps(results, name)
    height, width = enlarged_size(*image.shape[:2])  # so that names can be read
    scale = min(1.0, LONGEST / max(height, width))
    height, width = (max(1, round(side * scale)) for side in (height, width))
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    maps = [
        PixelData(data=torch.from_numpy(np.where(each < len(results.classes), each, 255))[None])
        for each in (truth, found)
    ]
    meta = dict(classes=results.classes, palette=colours(results.palette, len(results.classes)))
    drawn = draw_labels(image[..., ::-1], maps, draw_label_map, meta, (height, width))[..., ::-1]
    wrong = (truth != found) & (truth < len(results.classes))
    wrong = cv2.resize(wrong.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    errors = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR) // 2 + 90
    errors[wrong] = WRONG
    halves = np.concatenate([image, drawn[:, :width]], 1), np.concatenate([drawn[:, width:], errors], 1)
    picture = np.concatenate(halves, 0)
    write(target, picture)
    return Picture(f'pictures/{target.name}', Path(source).name, *picture.shape[1::-1], caption, tags)
