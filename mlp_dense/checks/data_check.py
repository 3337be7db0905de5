"""Check of data sets: their files, images, annotations and labels, as findings."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from PIL import Image, ImageFile
from rich.progress import track

from ..datasets.bands import LoadMultiBandImage
from ..errors import UnreadableError, UserError
from .band_agreement import check_image, lost_by_opencv
from .coco_data import Contents, annotation_findings, contents_of, object_findings
from .data_config import Reading
from .data_files import file_findings
from .duplicates import shared_images
from .findings import Finding, listing, merged, stop
from .label_statistics import MAX_MAPS, count_labels, has_label_maps, has_lossy_labels, label_findings

SAMPLE = 32
"""Number of images of a data set that are decoded, evenly spread, unless all are."""

REPLACE = 'replace or remove them'
Data = list[tuple[str, Any]]  # pairs of the name (train, val or test) and a built data set


def inspect(
    data: Data,
    everything: bool = True,
    foreign_metrics: Collection[str] = (),
    max_unreadable: float = 0.01,
    bands: int | None = None,
) -> tuple[list[Finding], list[Contents]]:
    """Return the findings about data sets, and in the main process their contents.

    It decodes a sample of the images, or `everything`. Several processes share the images, and return equal findings.
    `foreign_metrics` names the data sets evaluated by mmdet's own metrics. It is an error if a fraction above
    `max_unreadable` of the training images is missing. If `bands` is given, each image must have that many bands.
    """
    of_images, counts = _in_images(data, everything, bands)
    findings: list[Finding] = []
    contents = [contents_of(dataset) for _, dataset in data] if is_main_process() else []
    files: dict[str, list[str]] = defaultdict(list)
    for (name, dataset), content in zip(data, contents, strict=False):
        findings += annotation_findings(name, dataset, name in foreign_metrics)
        findings += object_findings(name, dataset, content)
        findings += file_findings(name, dataset, content, max_unreadable)
        files[name] += content.images
    findings += shared_images(files, everything)
    gathered = all_gather_object((findings + of_images, counts))
    rows = list(chain.from_iterable(part for part, _ in gathered))
    for i, (name, dataset) in enumerate(data):
        maps = sum(part[i][0] for _, part in gathered)
        pixels = np.sum([part[i][1] for _, part in gathered], axis=0)
        classes, reduced = dataset.metainfo.get('classes', ()), bool(getattr(dataset, 'reduce_zero_label', False))
        rows += label_findings(name, classes, pixels, maps, len(dataset), reduced)
    return merged(rows), contents


def _in_images(data: Data, everything: bool, bands: int | None) -> tuple[list[Finding], list[tuple[int, np.ndarray]]]:
    """Return findings about the images that this process decodes, and for each data set the pixels by label.

    More label maps than images are decoded.
    """
    samples: list[tuple[int, int, bool]] = []  # data set, index, whether the image is decoded, or its labels alone
    for number, (_, dataset) in enumerate(data):
        images, maps = (_spread(len(dataset), len(dataset) if everything else count) for count in (SAMPLE, MAX_MAPS))
        maps = maps if has_label_maps(dataset) else images
        samples += ((number, i, i in images) for i in sorted({*images, *maps}))
    findings: list[Finding] = []
    pixels = [(0, np.zeros(256, np.int64)) for _ in data]
    hidden = not everything or not is_main_process()
    for number, i, decodes in track(samples[get_rank() :: get_world_size()], 'Checking the data', disable=hidden):
        name, dataset = data[number]
        info = dataset.get_data_info(i)
        files = [None if 'img_bytes' in info else str(info['img_path']), info.get('seg_map_path')]
        if not all(Path(file).exists() for file in files if file and ':/' not in file):
            continue  # listed as missing
        findings += _in_image(name, dataset, info, decodes, bands)
        labels = info.get('gt_seg_map')
        if isinstance(labels, np.ndarray):
            count, sums = pixels[number]
            pixels[number] = (count + 1, sums + count_labels(labels, getattr(dataset, 'ignore_index', 255)))
    for name, dataset in data if is_main_process() else ():
        if has_lossy_labels(dataset):
            problem, remedy = 'label maps are JPEG files, whose compression changes labels', 'save them as PNG'
            findings.append(Finding('warning', name, problem, len(dataset), (), remedy))
    return findings, pixels


def _spread(total: int, count: int) -> set[int]:
    return set(range(0, total, max(total // count, 1))) if count else set()


def _in_image(name: str, dataset: Any, info: dict, decodes: bool, bands: int | None) -> Iterable[Finding]:
    """Yield the findings about an image, or about its labels alone, and put what was loaded into `info`."""
    file, annotated_size = str(info['img_path']), [info[key] for key in ('height', 'width') if key in info]
    try:
        for transform in dataset.pipeline.transforms:
            is_reading = isinstance(transform, Reading) and (decodes or transform.loads_labels)
            if is_reading or type(transform).__name__ == 'MapLabels':
                info.update(transform(info))
            if is_reading and decodes:
                loader = transform.transform
                if isinstance(loader, LoadMultiBandImage) and bands is not None:
                    check_image(file, info['img'].shape[2], bands)
                elif type(loader).__name__ == 'LoadImageFromFile' and (lost := lost_by_opencv(Path(file), info['img'])):
                    yield listing('warning', name, lost, [file], 'load them with mlp_dense.LoadMultiBandImage')
    except UserError as error:
        if isinstance(error, UnreadableError) and name == 'train':
            problem = 'images or label maps cannot be read, and will be skipped'
            yield listing('warning', name, problem, [file], REPLACE)
        else:
            yield stop(name, str(error))
        return
    if decodes and is_truncated(Path(file)):
        yield listing('warning', name, 'images are truncated; the missing area is grey', [file], REPLACE)
    if decodes and len(annotated_size) == 2 and 'ori_shape' in info and list(info['ori_shape'][:2]) != annotated_size:
        remedy = 'correct width and height, or apply the EXIF orientation to the images'
        yield listing('warning', name, 'image size differs from the annotations', [file], remedy)


def is_truncated(file: Path) -> bool:
    """Whether an image is truncated. OpenCV 4 decodes truncated JPEGs silently."""
    if not file.is_file() or ImageFile.LOAD_TRUNCATED_IMAGES:
        return False
    try:
        with Image.open(file) as image:
            image.load()
    except OSError as error:
        return 'truncated' in str(error)
    return False
