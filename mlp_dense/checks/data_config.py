"""Checks of the data that a config names: paths, annotation files and classes, then each loaded label."""

import mmap
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from PIL import Image

from ..config.config_file import evaluators, first_line, walk
from ..datasets.coco_json import read_json
from ..datasets.image_files import PILLOW_ERRORS, read_file
from ..datasets.layout import annotation_file, dataset_meta, leaves, paths_of
from ..errors import UnreadableError, UserError, some

CLASS_HEADS = {'bbox_head', 'mask_head', 'decode_head', 'head'}
INVALID_NUMBER = re.compile(rb'(?<=[\[,:\s])-?(?:NaN|Infinity|\d[\d.]*[eE]\+?\d{3,})(?=[\s,\]}])')


def check_data(cfg: Config, name: str) -> None:
    """Check what a loader (``train``, ``val``, ``test``) reads. Raises UserError if it is missing or classes differ."""
    if not cfg.get(f'{name}_dataloader'):  # a training run without validation
        return
    for dataset in leaves(cfg[f'{name}_dataloader'].dataset):
        metric_files = [Path(metric.ann_file) for metric in evaluators(cfg, name) if metric.get('ann_file')]
        for path in [*paths_of(dataset), *metric_files]:
            if ':/' not in str(path) and not path.exists():
                problem = f'{path} does not exist, and the {name} data of this config are read from there'
                raise UserError(f'{problem}; put the data there, or set their folder with --data-root.')
            if path.suffix == '.json' and path.is_file():
                check_numbers(path)
        if classes := dataset_meta(dataset).get('classes'):
            check_class_count(cfg.model, classes, f'the {name} data ({dataset.type})', annotation_file(dataset))
            if name == 'val' and cfg.get('train_dataloader'):
                _check_same_classes(classes, cfg.train_dataloader.dataset)


def check_class_count(model: Any, classes: Sequence[str], owner: str, file: Path | None = None) -> None:
    """Raise UserError if ``num_classes`` of a head differs from the number of class names.

    Heads for other targets (stuff, boundaries, a second task) are not compared. ``check_num_classes=False`` in the
    model's ``test_cfg`` disables the check. The message names the data by `owner`, in the plural, and lists the class
    names in the annotation `file`.
    """
    if 'num_stuff_classes' in str(model) or not (model.get('test_cfg') or {}).get('check_num_classes', True):
        return
    for path, head, key, value in walk(model, 'model.'):
        if key != 'num_classes' or value == len(classes) or 'contrastive_cfg' in head:  # counts words, not classes
            continue
        keys = {*path.split('.')}
        if CLASS_HEADS & keys and 'detector' not in keys:  # the detector of a tracker has other classes
            problem = f'{path} is {value}, but {owner} have {len(classes)} classes ({some(list(classes))})'
            remedy = f'set num_classes={len(classes)}, or metainfo=dict(classes=...) of the data'
            raise UserError(f'{problem}; {remedy}.{_contents(file)}')


def _check_same_classes(classes: Sequence[str], training: Any) -> None:
    """Raise UserError if validation and training data give one number to different classes."""
    for dataset in leaves(training):
        trained = dataset_meta(dataset).get('classes') or classes
        for i, (before, name) in enumerate(zip(trained, classes, strict=False)):
            if before != name:
                problem = f'Class {i} is {before!r} in the training data and {name!r} in the val data'
                difference = _difference(trained, classes, 'the val data')
                raise UserError(f'{problem}; set the same classes in the same order.{difference}')


def labels_keep_their_size(dataset: Any) -> bool:
    """Whether a pipeline loads labels after resizing the image, as test pipelines do, so that they keep their size."""
    names = [str(transform['type']) for transform in next(leaves(dataset))['pipeline']]
    loading = next((i for i, name in enumerate(names) if 'Annotations' in name), 0)
    return any('Resize' in name for name in names[:loading])


def check_built(dataset: Any) -> None:
    """Raise UserError if an annotation file lacks classes of its data set; let loading errors name the file."""
    classes, ids = dataset.metainfo.get('classes', ()), getattr(dataset, 'cat_ids', None)
    if ids is not None and len(ids) != len(classes):
        file = Path(dataset.ann_file)
        problem = f'{file} has {len(ids)} of the {len(classes)} classes of the data set'
        details = _difference(classes, category_names(file), 'the file') + _contents(file)
        raise UserError(f'{problem}; set metainfo=dict(classes=...) to the names in the file.{details}')
    ignored = getattr(dataset, 'ignore_index', 255)
    dataset.pipeline.transforms = [
        Reading(transform, len(classes), ignored) if type(transform).__name__.startswith('Load') else transform
        for transform in dataset.pipeline.transforms
    ]


def copy_before_packing(dataset: Any) -> None:
    """Let the pipelines of a data set and its wrappers call :func:`copy_flipped` before each Pack transform."""
    pipeline = getattr(dataset, 'pipeline', ())
    _copy_before_packing(getattr(pipeline, 'transforms', pipeline))  # a MultiImageMixDataset has a list
    for child in (*getattr(dataset, 'datasets', ()), *filter(None, [getattr(dataset, 'dataset', None)])):
        copy_before_packing(child)


def _copy_before_packing(transforms: Any) -> None:
    for i, transform in enumerate(transforms):
        for subroutine in getattr(transform, 'subroutines', ()):  # of TestTimeAug
            _copy_before_packing(subroutine.transforms)
        if type(transform).__name__.startswith('Pack'):
            transforms[i] = Compose([copy_flipped, transform])


def copy_flipped(results: dict) -> dict:
    """Copy an image of one row or column, which a flip can leave with a negative stride that PyTorch refuses.

    NumPy calls such a view contiguous, so mmdet and mmsegmentation pack it without a copy.
    """
    image = results.get('img')
    if isinstance(image, np.ndarray) and 1 in image.shape[:2]:
        results['img'] = image.copy()
    return results


def _difference(classes: Sequence[str], others: Sequence[str], owner: str) -> str:
    """Name the classes that only the data set (`classes`) or only the `owner` of `others` has."""
    missing = ', '.join(name for name in classes if name not in others)
    additional = ', '.join(name for name in others if name not in classes)
    return (f' Missing in {owner}: {missing}.' if missing else '') + (additional and f' Only in {owner}: {additional}.')


def _contents(file: Path | None) -> str:
    names = category_names(file)
    return f' {file} has: {", ".join(map(str, names))}.' if names else ''


def check_numbers(file: Path) -> None:
    """Raise UserError if a file contains NaN or infinity, which exhaust the memory of pycocotools or crash it."""
    if not file.stat().st_size:
        raise UserError(f'{file} is empty; replace it by a complete file.')
    with file.open('rb') as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as text:
        if match := INVALID_NUMBER.search(text):
            around = bytes(text[max(match.start() - 60, 0) : match.end() + 20]).decode(errors='replace')
            problem = f'{file} contains {match[0].decode()} at byte {match.start()} ({around!r})'
            raise UserError(f'{problem}; use a finite number.')


def category_names(file: Path | None) -> list[str]:
    """Return the class names in an annotation file, in its order; none if it is not in COCO's format."""
    try:
        content = read_json(file) if file and file.suffix == '.json' else {}
        return [category['name'] for category in content.get('categories', ())]
    except (AttributeError, KeyError, TypeError, UserError):
        return []


class Reading:
    """Loading transform whose errors name the unreadable file."""

    def __init__(self, transform: Any, classes: int, ignored: int = 255):
        self.transform, self.classes, self.ignored = transform, classes, ignored
        self.loads_labels = 'Annotations' in type(transform).__name__

    def __call__(self, results: dict) -> dict:
        try:
            results = self.transform(results)
        except UnreadableError:
            raise
        except Exception as error:  # the decoders of OpenCV and Pillow raise many types
            for file in filter(None, map(results.get, ('img_path', 'seg_map_path'))):
                if read_file(Path(file), cv2.IMREAD_UNCHANGED) is None:  # mmcv decodes bytes, not files
                    problem = f'{file} is missing or not a readable image'
                    raise UnreadableError(f'{problem}; replace or remove it.') from error
            problem = f'{results.get("img_path")}: {type(self.transform).__name__} fails on its annotations'
            raise UserError(f'{problem} ({first_line(error)}); fix or remove them.') from error
        if self.classes and results.get('gt_seg_map') is not None and results.get('seg_map_path'):
            file, size = Path(results['seg_map_path']), results.get('ori_shape')
            reduced = bool(results.get('reduce_zero_label'))
            if size is not None and 1 in size[:2] and results['gt_seg_map'].size == size[0] * size[1]:
                results['gt_seg_map'] = results['gt_seg_map'].reshape(size[:2])  # mmsegmentation squeezes it
            check_label_map(file, results['gt_seg_map'], size, self.classes, reduced, self.ignored)
        return results


def check_label_map(
    file: Path, labels: np.ndarray, size: Sequence[int] | None, classes: int, reduced: bool = False, ignored: int = 255
) -> None:
    """Raise UserError if a loaded label map (H, W) has a wrong size or label; `size` is (height, width) of its image.

    Allowed labels are the indices of the classes, 255 and the data set's ``ignore_index``, `ignored`. `reduced` means
    that ``reduce_zero_label`` has replaced 0 by 255 and subtracted 1 from all other labels.
    """
    _check_depth(file)
    if labels.ndim != 2:
        raise UserError(f'{file} has colours; save a label map with one channel that contains class indices.')
    if size is not None and labels.shape != tuple(size[:2]):
        problem = f'{file} is {labels.shape[1]}x{labels.shape[0]}, but its image {size[1]}x{size[0]} pixels'
        raise UserError(f'{problem}; save both in one size.')
    present = np.setdiff1d(labels, (ignored, 255))
    if len(present) and present[-1] >= classes:
        others = f'{"0 and " * reduced}{"" if ignored == 255 else f"{ignored} and "}255'
        allowed = f'{int(reduced)} to {classes - 1 + reduced}, and {others} for ignored pixels'
        problem = f'{file} contains the label {present[-1] + reduced}, but there are {classes} classes ({allowed})'
        raise UserError(f'{problem}; fix the label map, or set metainfo and reduce_zero_label of the data set.')


def _check_depth(file: Path) -> None:
    """Raise UserError if a label map has values that do not fit into the 8 bits that are loaded."""
    labels: np.ndarray | None
    try:
        with Image.open(file) as image:
            if image.mode not in ('I', 'F') and not image.mode.startswith('I;16'):
                return
            labels = np.asarray(image)
    except PILLOW_ERRORS:  # another decoder than Pillow loads it
        labels = read_file(file, cv2.IMREAD_UNCHANGED)
    if labels is None or labels.dtype == np.uint8:
        return
    lost = labels[~np.isin(labels, np.arange(256))]
    if lost.size:
        bits = 16 if lost.max() < 1 << 16 else 32
        kind = 'contains floats' if labels.dtype.kind == 'f' else f'has {bits} bits per pixel'
        problem = f'{file} {kind}, among them {lost.flat[0]}, but 8 bits are loaded'
        raise UserError(f'{problem}; save label maps with 8 bits and whole numbers below 256.')
