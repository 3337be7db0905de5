"""Report of a segmentor."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.structures import PixelData
from rich.progress import track

from ..datasets.image_files import read_file
from ..errors import UserError
from ..visualization.drawing import draw_label_map, draw_labels
from .page import HOVER, LONGEST, Column, Gallery, GalleryImage, Report, Table, choose, draw_all, read, written
from .plots import confusion_counts, confusion_sections, most_confused
from .results import Results, Scores, mean_of_classes, read_json

BAND = 0.02  # width of the band near boundaries, as a fraction of the diagonal (Cheng et al., arXiv 2103.16562)
ERROR_COLOUR = (64, 64, 230)  # BGR
OUTCOMES = {'missed': '#4477aa', 'wrongly predicted': '#ee3333'}


@dataclass
class ImageCounts:
    """Counts of the labelled pixels of an image, for C classes."""

    name: str
    confusion: np.ndarray  # (C, C) pixels by true and predicted class
    near: np.ndarray  # (C, C) confusion of the pixels near boundaries

    @property
    def error(self) -> float:
        """Fraction of wrong pixels."""
        total = self.confusion.sum()
        return 1 - np.trace(self.confusion) / total if total else 0.0


def report(results: Results, score_thr: float, max_images: int, pool: Executor, out: Path) -> Report:
    """Return the report of a test; the worst images of each class are drawn into `out`."""
    sources = read_json(results.file('images.json'))
    images = count_images(results, sources, pool)
    total, near = (np.sum([getattr(image, name) for image in images], axis=0) for name in ('confusion', 'near'))
    with np.errstate(invalid='ignore'):
        accuracy, precision = np.diag(total) / total.sum(1), np.diag(total) / total.sum(0)
    ious = iou(total), iou(near), iou(total - near)
    columns = [
        Column('class', results.classes),
        Column('IoU', ious[0], 'intersection over union'),
        Column('accuracy', accuracy, 'fraction of the pixels of the class that are correct'),
        Column('precision', precision, 'fraction of the pixels predicted as the class that are correct'),
        Column('IoU near boundaries', ious[1], f'within {BAND:g} of the diagonal of the image'),
        Column('IoU elsewhere', ious[2], 'at a greater distance from boundaries'),
        Column('pixels', total.sum(1) / max(total.sum(), 1), 'fraction of all pixels'),
    ]
    sections = [
        Table('Classes', HOVER, columns, sort=1),
        _gallery(results, sources, images, max_images, pool, out),
        *confusion_sections(total, results.classes, 'Pixels.'),
    ]
    values = dict(
        mIoU=mean_of_classes(ious[0]),
        mAcc=mean_of_classes(accuracy),
        aAcc=np.trace(total) / max(total.sum(), 1),
        mIoU_near_boundaries=mean_of_classes(ious[1]),
        mIoU_elsewhere=mean_of_classes(ious[2]),
        confusion=total,
    )
    return Report(results.name, results.facts(len(images)), sections, values)


def scores(results: Results, score_thr: float, pool: Executor) -> Scores:
    """Return the IoU of each class and the fraction of wrong pixels in each image."""
    sources = read_json(results.file('images.json'))
    images = count_images(results, sources, pool)
    counts = np.stack([[np.diag(i.confusion), i.confusion.sum(0), i.confusion.sum(1)] for i in images])
    names = [image.name for image in images]
    errors = np.array([image.error for image in images])
    return Scores('IoU', names, [sources[name] for name in names], errors, partial(_ious, counts))


def _ious(counts: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    intersection, predicted, truth = counts.sum(0) if weights is None else np.tensordot(weights, counts, 1)
    with np.errstate(invalid='ignore'):
        return intersection / (predicted + truth - intersection)


def count_images(results: Results, names: Mapping[str, str], pool: Executor) -> list[ImageCounts]:
    """Count the pixels of all images. Raises UserError if a label map is missing."""
    count = partial(count_image, results=results)
    return list(track(pool.map(count, sorted(names), chunksize=8), 'counting', len(names)))


def count_image(name: str, results: Results) -> ImageCounts:
    """Count the pixels of an image."""
    classes = len(results.classes)
    truth, predicted = label_maps(results, name)
    labelled = truth < classes
    band = max(1.0, BAND * np.hypot(*truth.shape))
    near = labelled & (distance_to_boundary(truth, labelled) <= band)
    counts = [confusion_counts(truth[mask], predicted[mask], classes) for mask in (labelled, near)]
    return ImageCounts(name, *counts)


def label_maps(results: Results, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the ground truth (H, W), which is C where no class is labelled, and the prediction (H, W)."""
    files = [results.file(side, f'{name}.png') for side in ('truth', 'labels')]
    truth, predicted = (read_file(file, cv2.IMREAD_UNCHANGED) for file in files)
    if truth is None or predicted is None:
        raise UserError(f'{files[1]} or {files[0]} cannot be read; run the test again with --report.')
    classes = len(results.classes)
    truth = np.where(truth == results.ignore_index, classes, truth.astype(int))
    return np.minimum(truth, classes), predicted.astype(int)


def distance_to_boundary(labels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the distance (H, W) to the next pixel with a neighbour of another class; infinite without boundaries."""
    boundary = np.zeros(labels.shape, dtype=bool)
    for first, second in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        differ = (labels[first] != labels[second]) & known[first] & known[second]
        boundary[first] |= differ
        boundary[second] |= differ
    if not boundary.any():
        return np.full(labels.shape, np.inf)
    return cv2.distanceTransform((~boundary).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def iou(confusion: np.ndarray) -> np.ndarray:
    """Return the IoU (C,), NaN for a class that is neither labelled nor predicted."""
    return _ious(np.stack([[np.diag(confusion), confusion.sum(0), confusion.sum(1)]]), None)


def _gallery(
    results: Results,
    sources: Mapping[str, str],
    images: Sequence[ImageCounts],
    max_images: int,
    pool: Executor,
    out: Path,
) -> Gallery:
    confused = [image.confusion * (1 - np.eye(len(image.confusion), dtype=int)) for image in images]
    missed = [np.flatnonzero(counts.sum(1)).tolist() for counts in confused]
    chosen = []
    for i in choose([image.error for image in images], [set(labels) for labels in missed], max_images):
        counts, name = confused[i], images[i].name
        confusions = [
            f'{results.classes[a]} predicted as {results.classes[b]}: {100 * counts[a, b] / counts.sum():.0f} %'
            for a, b in zip(*most_confused(counts, 3), strict=True)
        ]
        caption = f'{100 * images[i].error:.1f} % of the pixels wrong'
        caption += f', of these {"; ".join(confusions)}' if confusions else ''
        predicted = np.flatnonzero(counts.sum(0)).tolist()
        tags = [(label, 'missed') for label in missed[i]] + [(label, 'wrongly predicted') for label in predicted]
        chosen.append(GalleryImage(sources[name], name, caption, tags))
    drawn = draw_all(chosen, out, pool, results.loading, partial(draw, results=results))
    note = (
        f'{len(drawn)} of {len(images)} images: the worst images of each class, sorted by their fraction of wrong '
        'pixels. Each shows the image, the ground truth, the prediction, and the wrong pixels in red.'
    )
    return Gallery('Images', note, list(results.classes), OUTCOMES, drawn)


def draw(target: Path, image: GalleryImage, results: Results) -> GalleryImage | None:
    """Draw image, ground truth, prediction and errors in one image; return None if it cannot be read."""
    if (pixels := read(image.source, results.loading)) is None:
        return None
    truth, predicted = label_maps(results, image.name)
    scale = LONGEST / max(pixels.shape[:2])  # small images are enlarged, so that names are legible
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    classes = len(results.classes)
    maps = [PixelData(data=torch.from_numpy(np.where(m < classes, m, 255))[None]) for m in (truth, predicted)]
    meta = dict(classes=results.classes, palette=results.palette)
    drawn = draw_labels(pixels, maps, draw_label_map, meta, (height, width), bgr=True)
    is_wrong = (truth != predicted) & (truth < classes)
    is_wrong = cv2.resize(is_wrong.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    errors = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR) // 2 + 90
    errors[is_wrong] = ERROR_COLOUR
    top, bottom = np.hstack([pixels, drawn[:, :width]]), np.hstack([drawn[:, width:], errors])
    return written(target, np.vstack([top, bottom]), replace(image, name=Path(image.source).name))
