"""Ground truth and predictions in COCO's format, and what matches in them."""

import json
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
from .error_types import Matched, match_image
from .results import KINDS, Results

SHARD = 250  # images that a process takes at a time


@dataclass
class Data:
    """What was tested, of the classes of a test; ``class`` of an object is the index of its class."""

    images: list[dict]  # by id
    truth: dict[int, list[dict]]  # by image id
    found: dict[str, dict[int, list[dict]]]  # by kind, then by image id
    categories: list[int]


@dataclass
class Found:
    """What matches of one kind, in all images."""

    matches: list[list[Matches]]  # [class][area]
    images: list[Matched]


def read_data(results: Results) -> Data:
    """UserError: a file is absent or not in COCO's format."""
    file = Path(results.annotations)
    content = _json(file)
    ids = {category['name']: category['id'] for category in content['categories']}
    if absent := [name for name in results.classes if name not in ids]:
        raise UserError(f'{file} has no category {absent[0]!r}, which {results.file("run.json")} names.')
    categories = [ids[name] for name in results.classes]
    index = {category: i for i, category in enumerate(categories)}
    images = sorted(content['images'], key=lambda image: image['id'])
    known = {image['id'] for image in images}

    def by_image(each: Sequence[Mapping], source: Path) -> dict[int, list[dict]]:
        gathered = defaultdict(list)
        for one in each:
            if one['image_id'] not in known:
                raise UserError(f'{source} has something in image {one["image_id"]}, which {file} does not list.')
            if one['category_id'] in index:
                gathered[one['image_id']].append({**one, 'class': index[one['category_id']]})
        return gathered

    files = {kind: results.file(f'predictions.{kind}.json') for kind in KINDS}
    found = {kind: by_image(_json(each), each) for kind, each in files.items() if each.is_file()}
    if not found:
        raise UserError(f'{files["bbox"]} does not exist; test again with --report.')
    return Data(images, by_image(content['annotations'], file), found, categories)


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise UserError(f'{file} cannot be read ({error}).') from error


def match_all(data: Data, kind: str, score_thr: float, pool: Executor) -> Found:
    """Matches all images; confused classes are those of scores from `score_thr` on."""
    predictions, parts = data.found[kind], []
    for start in range(0, len(data.images), SHARD):
        images = data.images[start : start + SHARD]
        sides = ([each for image in images for each in side.get(image['id'], ())] for side in (data.truth, predictions))
        parts.append((images, *sides))
    work = partial(match_shard, kind=kind, categories=data.categories, score_thr=score_thr)
    done = list(track(pool.map(work, parts), f'matching {kind}', len(parts)))
    matches = [
        [merged([part[0][label, area] for part in done]) for area in range(len(AREAS))]
        for label in range(len(data.categories))
    ]
    return Found(matches, [each for part in done for each in part[1]])


def match_shard(part: tuple, kind: str, categories: Sequence[int], score_thr: float) -> tuple[dict, list[Matched]]:
    """Of images, their ground truth and predictions: what COCOeval matches, and what is wrong in each."""
    images, truth, found = part
    coco = as_coco(images, [{**each, 'id': i + 1} for i, each in enumerate(truth)], categories)
    sides = {image['id']: ([], []) for image in images}
    for i, some in enumerate((coco.dataset['annotations'], found)):
        for each in some:
            image = coco.imgs[each['image_id']]
            rle = dict(rle=as_rle(each['segmentation'], image['height'], image['width'])) if kind == 'segm' else {}
            sides[each['image_id']][i].append(each | rle)
    return match(coco, found, kind, categories), [match_image(*sides[im['id']], kind, score_thr) for im in images]


def as_rle(segmentation: Any, height: int, width: int) -> dict:
    """A mask of pycocotools from polygons, counts or a mask as JSON has it."""
    if isinstance(segmentation, list):
        return masks.merge(masks.frPyObjects(segmentation, height, width))
    if isinstance(segmentation['counts'], list):
        return masks.frPyObjects(segmentation, height, width)
    counts = segmentation['counts']
    return dict(segmentation, counts=counts.encode() if isinstance(counts, str) else counts)
