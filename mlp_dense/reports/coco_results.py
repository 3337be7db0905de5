"""Ground truth and predictions in COCO's format, and their matches."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pycocotools import mask as masks
from rich.progress import track

from ..errors import UserError
from .average_precision import AREAS, Matches, as_coco, match, merged
from .error_types import ImageErrors, match_image
from .results import Results, read_json

GEOMETRIES = ('bbox', 'segm')
SHARD = 250  # images per job of a process


@dataclass
class CocoData:
    """Ground truth and detections of the tested classes; ``class`` of an object is the index of its class."""

    images: list[dict]  # by id
    truth: dict[int, list[dict]]  # by image id
    detections: dict[str, dict[int, list[dict]]]  # by geometry, then by image id
    categories: list[int]


def read_data(results: Results) -> CocoData:
    """Read the ground truth and the detections of a test. Raises UserError if the files do not fit together."""
    file = Path(results.annotations)
    content = read_json(file)
    ids = {category['name']: category['id'] for category in content['categories']}
    if missing := [name for name in results.classes if name not in ids]:
        raise UserError(f'{file} has no category {missing[0]!r}; restore the annotations of the test.')
    categories = [ids[name] for name in results.classes]
    index = {category: i for i, category in enumerate(categories)}
    images = sorted(content['images'], key=lambda image: image['id'])
    known = {image['id'] for image in images}

    def by_image(items: Sequence[Mapping], source: Path) -> dict[int, list[dict]]:
        gathered = defaultdict(list)
        for item in items:
            if item['image_id'] not in known:
                raise UserError(f'{file} has no image {item["image_id"]} of {source}; restore the annotations.')
            if item['category_id'] in index:
                gathered[item['image_id']].append({**item, 'class': index[item['category_id']]})
        return gathered

    files = {geometry: results.file(f'predictions.{geometry}.json') for geometry in GEOMETRIES}
    written = {geometry: path for geometry, path in files.items() if path.is_file()} or {'bbox': files['bbox']}
    detections = {geometry: by_image(read_json(path), path) for geometry, path in written.items()}
    return CocoData(images, by_image(content['annotations'], file), detections, categories)


def match_all(
    data: CocoData, geometry: str, score_thr: float, pool: Executor
) -> tuple[list[list[Matches]], list[ImageErrors]]:
    """Return the matches [class][area] and the errors of each image."""
    jobs, sides = [], (data.truth, data.detections[geometry])
    for start in range(0, len(data.images), SHARD):
        images = data.images[start : start + SHARD]
        jobs.append((images, *([item for i in images for item in side.get(i['id'], ())] for side in sides)))
    work = partial(match_shard, geometry=geometry, categories=data.categories, score_thr=score_thr)
    shards = list(track(pool.map(work, jobs), f'matching {geometry}', len(jobs)))
    matches = [
        [merged([shard_matches[label, area] for shard_matches, _ in shards]) for area in range(len(AREAS))]
        for label in range(len(data.categories))
    ]
    return matches, [errors for _, shard_errors in shards for errors in shard_errors]


def match_shard(
    shard: tuple[list, list, list], geometry: str, categories: Sequence[int], score_thr: float
) -> tuple[dict[tuple, Matches], list[ImageErrors]]:
    """Match images, their ground truth and their detections; return COCOeval's matches and the errors per image.

    `score_thr` is the lowest score of the detections in confused pairs.
    """
    images, truth, detections = shard
    coco = as_coco(images, [{**item, 'id': i + 1} for i, item in enumerate(truth)], categories)
    sides: dict[int, tuple[list, list]] = {image['id']: ([], []) for image in images}
    for side, items in enumerate((truth, detections)):
        for item in items:
            image = coco.imgs[item['image_id']]
            if geometry == 'segm':
                item = {**item, 'rle': as_rle(item['segmentation'], image['height'], image['width'])}
            sides[image['id']][side].append(item)
    errors = [match_image(*sides[image['id']], geometry, score_thr) for image in images]
    return match(coco, detections, geometry, categories), errors


def as_rle(segmentation: Any, height: int, width: int) -> dict:
    """Return a run-length encoded mask of pycocotools from polygons, counts or an encoded mask in JSON."""
    if isinstance(segmentation, list):
        return masks.merge(masks.frPyObjects(segmentation, height, width))
    is_encoded = not isinstance(segmentation['counts'], list)
    return segmentation if is_encoded else masks.frPyObjects(segmentation, height, width)
