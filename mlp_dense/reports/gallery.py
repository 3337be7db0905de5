"""The pictures of a detector's report: the worst of every class, with what is wrong in them."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as masks
from rich.progress import track

from ..datasets.archive import Archive
from .coco_results import Data, as_rle
from .error_types import HIT, Matched
from .page import Gallery, Picture
from .results import Results

COLOURS = {
    HIT: '#228833',
    'missed': '#4477aa',
    'classification': '#aa3377',
    'localization': '#ccbb44',
    'both': '#997700',
    'duplicate': '#ee8866',
    'background': '#ee3333',
    'truth': '#bbbbbb',
}
"""Of what is drawn: hits, objects that are missed, errors, and objects that are hit."""
KINDS = list(COLOURS)


def gallery(
    results: Results, data: Data, kind: str, images: Sequence[Matched], score_thr: float, limit: int, pool: Executor
) -> Gallery:
    """Draws at most `limit` images."""
    shown = [list(objects_of(image, score_thr)) for image in images]
    wrong = [sum(name not in (HIT, 'truth') for name, *_ in each) for each in shown]
    tags = [sorted({(label, KINDS.index(name)) for name, label, *_ in each if name != 'truth'}) for each in shown]
    chosen = choose(wrong, [{label for label, tag in each if KINDS[tag] != HIT} for each in tags], limit)
    jobs = []
    for i in chosen:
        record, image = data.images[i], images[i]
        truth, found = data.truth.get(record['id'], []), data.found[kind].get(record['id'], [])
        objects = []
        for name, label, place, score, overlap, other in shown[i]:
            one = truth[image.object_positions[place]] if score is None else found[image.positions[place]]
            mask = as_rle(one['segmentation'], record['height'], record['width']) if kind == 'segm' else None
            objects.append((KINDS.index(name), label, one['bbox'], score, overlap, other, mask))
        counts = Counter(name for name, *_ in shown[i] if name != 'truth')
        caption = ', '.join(f'{count} {name}' for name, count in counts.items()) or 'nothing to find, nothing found'
        source = str(Path(results.images, record['file_name']))
        jobs.append((source, record['file_name'], caption, tags[i], objects))
    drawn = draw_all(draw, jobs, results.folder, pool)
    note = (
        f'{len(drawn)} of {len(images)} images: of every class those with most errors, ordered by their number, at IoU '
        f'0.50 and a score of at least {score_thr:g}. What is right has thin lines; a click enlarges.'
    )
    return Gallery('Images', note, list(results.classes), list(COLOURS.items()), drawn)


def objects_of(image: Matched, score_thr: float) -> Iterator[tuple]:
    """Kind, class, place, score (None: of the ground truth), IoU, and of a wrong class the right one."""
    shown = image.scores >= score_thr
    for j, label in enumerate(image.object_classes.tolist()):
        hit = image.hit_by[j] >= 0 and shown[image.hit_by[j]]
        yield 'truth' if hit else 'missed', label, j, None, None, None
    for i in (shown & ~image.ignored).nonzero()[0]:
        other = int(image.object_classes[image.objects[i]]) if image.kinds[i] == 'classification' else None
        yield image.kinds[i], int(image.classes[i]), i, float(image.scores[i]), float(image.overlaps[i]), other


def choose(errors: Sequence[float], classes: Sequence[set[int]], limit: int) -> list[int]:
    """At most `limit` images: of every class in turn the one with most errors, then any; ordered by errors."""
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    queues = defaultdict(list)
    for i in order:
        for label in classes[i]:
            queues[label].append(i)
    in_turn = [
        queue[rank]
        for rank in range(max(map(len, queues.values()), default=0))
        for queue in queues.values()
        if rank < len(queue)
    ]
    chosen = list(dict.fromkeys([*in_turn, *order]))[:limit]
    return sorted(chosen, key=lambda i: -errors[i])


def draw_all(draw: Callable, jobs: Sequence[tuple], folder: Path, pool: Executor) -> list[Picture]:
    """What ``draw(file to write, job)`` gives for each job, but for None, in the folder of a report; pictures that an
    earlier report has there beyond these are removed."""
    pictures = folder / 'pictures'
    pictures.mkdir(exist_ok=True)
    files = [pictures / f'{number:05}.jpg' for number in range(len(jobs))]
    for stale in set(pictures.glob('*.jpg')) - set(files):
        stale.unlink()
    return [each for each in track(pool.map(draw, files, jobs, chunksize=8), 'drawing', len(jobs)) if each]


def draw(target: Path, job: tuple) -> Picture | None:
    """Writes the picture smaller; None: it cannot be read."""
    source, name, caption, tags, objects = job
    if (size := shrunk(source, target)) is None:
        return None
    height, width, scale = size
    drawn = []
    for kind, label, box, score, overlap, other, mask in objects:
        numbers = [None if each is None else round(each, 3) for each in (score, overlap)]
        path = outline(mask, height, width) if mask is not None else ''
        drawn.append((kind, label, *(round(each * scale, 1) for each in box), *numbers, other, path))
    return Picture(f'pictures/{target.name}', name, width, height, caption, tags, drawn)


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
