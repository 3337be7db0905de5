"""Checks of the data that a config names, before anything is built."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS

from ..config.reading import evaluators, first_line, leaves, walk
from ..errors import UnreadableError, UserError
from .annotations import check_numbers

CLASS_HEADS = {'bbox_head', 'mask_head', 'decode_head', 'head'}


def check_data(cfg: Config, name: str) -> None:
    """Finds what a loader (``train``, ``val``, ``test``) reads. UserError: it is missing, or class counts differ."""
    if not cfg.get(f'{name}_dataloader'):  # a training without validation
        return
    for dataset in leaves(cfg[f'{name}_dataloader'].dataset):
        root = Path(dataset.get('data_root') or '')
        prefixes = (dataset.get('data_prefix') or {}).values()
        wanted = [root / (dataset.get('ann_file') or ''), *(root / prefix for prefix in prefixes)]
        wanted += [Path(evaluator.ann_file) for evaluator in evaluators(cfg, name) if evaluator.get('ann_file')]
        for path in wanted:
            if ':/' not in str(path) and not path.exists():
                need = f'{path} does not exist, and the {name} data of this config are read from there'
                raise UserError(f'{need}; put the data there, or say where they are with --data-root.')
            if path.suffix == '.json' and path.is_file():
                check_numbers(path)
        if classes := dataset_meta(dataset).get('classes'):
            check_class_count(cfg.model, classes, f'the {name} data ({dataset.type})')
            if name == 'val' and cfg.get('train_dataloader'):
                _check_names(classes, cfg.train_dataloader.dataset)


def check_class_count(model: Any, classes: Sequence[str], owner: str) -> None:
    """UserError: a head of objects or of label maps has another ``num_classes`` in the config of a model than the class
    names of their `owner`, a plural. Heads of other things (stuff, boundaries, a second task) count something else;
    ``check_num_classes=False`` in the model's ``test_cfg`` leaves the check out."""
    if 'num_stuff_classes' in str(model) or not (model.get('test_cfg') or {}).get('check_num_classes', True):
        return
    for where, head, key, value in walk(model, 'model.'):
        if key != 'num_classes' or value == len(classes) or 'contrastive_cfg' in head:  # of words, not of classes
            continue
        parts = {*where.split('.')}  # a tracker's detector finds what the tracker names
        if CLASS_HEADS & parts and 'detector' not in parts:
            raise UserError(f'{where} is {value}, but {owner} have {len(classes)} classes: make them equal.')


def _check_names(classes: Sequence[str], training: Any) -> None:
    """UserError: validation and training data name different things by the same number."""
    for dataset in leaves(training):
        theirs = dataset_meta(dataset).get('classes') or classes
        differing = [pair for pair in zip(theirs, classes, strict=False) if pair[0] != pair[1]]
        if differing:
            trained, validated = differing[0]
            raise UserError(
                f'The training data call a class {trained!r} that the val data call {validated!r}: give both the same '
                'classes in the same order.'
            )


def dataset_meta(dataset: Any) -> dict[str, Any]:
    """What a data set says of itself (``classes``, ``palette``), in its config, in its class or where it is."""
    dataset = next(leaves(dataset))
    with DATASETS.switch_scope_and_registry(None) as registry:  # the default scope
        cls = registry.get(dataset.type)
    if hasattr(cls, 'read_meta') and not dataset.get('metainfo'):
        return cls.read_meta(dataset)
    return dict(dataset.get('metainfo') or getattr(cls, 'METAINFO', {}))


def labels_keep_their_size(dataset: Any) -> bool:
    """Whether a config loads labels after the image is resized, as test pipelines do: they keep the original size."""
    names = [str(transform['type']) for transform in next(leaves(dataset))['pipeline']]
    loading = next((i for i, name in enumerate(names) if 'Annotations' in name), 0)
    return any('Resize' in name for name in names[:loading])


def explain_empty(cfg: Any, error: ValueError) -> Exception:
    """The error that says where a data set of a config found no image, if that is what happened."""
    if 'need at least one array' not in str(error):  # what mmengine's data sets say when they are empty
        return error
    cfg = next(leaves(cfg))
    where = ', '.join(f'{key}={cfg[key]}' for key in ('data_root', 'data_prefix', 'img_suffix') if cfg.get(key))
    return UserError(f'There is no image where the config looks ({where}); correct it.')


def check_built(dataset: Any) -> None:
    """Makes a data set name the files that it cannot read. UserError: its annotation file has other classes."""
    classes, found = dataset.metainfo.get('classes', ()), getattr(dataset, 'cat_ids', None)
    if found is not None and len(found) != len(classes):
        raise UserError(
            f'{dataset.ann_file} names {len(found)} of the {len(classes)} classes of the data set '
            f'({", ".join(classes[:5])}, ...); set metainfo=dict(classes=...) to the names in the file.'
        )
    for i, transform in enumerate(dataset.pipeline.transforms):
        if type(transform).__name__.startswith('Load'):
            dataset.pipeline.transforms[i] = Reading(transform, len(classes), getattr(dataset, 'ignore_index', 255))


class Reading:
    """Runs a loading transform; what cannot be read becomes an error that names the file."""

    def __init__(self, transform: Any, classes: int, ignored: int = 255):
        self.transform, self.classes, self.ignored = transform, classes, ignored

    def __call__(self, results: dict) -> dict:
        try:
            results = self.transform(results)
        except UnreadableError:
            raise
        except Exception as error:  # whatever the decoders of OpenCV and Pillow raise
            for file in filter(None, map(results.get, ('img_path', 'seg_map_path'))):
                if not _is_readable(Path(file)):
                    raise UnreadableError(f'{file} is missing or no readable image; replace or remove it.') from error
            name = type(self.transform).__name__
            raise UserError(
                f'{results.get("img_path")}: {name} fails on what is annotated there ({first_line(error)}); correct it.'
            ) from error
        if self.classes and results.get('gt_seg_map') is not None and results.get('seg_map_path'):
            file, size = Path(results['seg_map_path']), results.get('ori_shape')
            reduced = bool(results.get('reduce_zero_label'))
            if size is not None and 1 in size[:2] and results['gt_seg_map'].size == size[0] * size[1]:
                results['gt_seg_map'] = results['gt_seg_map'].reshape(size[:2])  # mmsegmentation squeezes it
            check_label_map(file, results['gt_seg_map'], size, self.classes, reduced, self.ignored)
        return results


def _is_readable(file: Path) -> bool:
    """As mmcv reads it: from the bytes of the file, where OpenCV takes less than from the file itself."""
    content = np.frombuffer(file.read_bytes() if file.is_file() else b'', np.uint8)
    return len(content) > 0 and cv2.imdecode(content, cv2.IMREAD_UNCHANGED) is not None


def check_label_map(
    file: Path,
    labels: np.ndarray,
    size: tuple[int, int] | None,
    classes: int,
    reduced: bool = False,
    ignored: int = 255,
) -> None:
    """UserError: a label map, as it is after loading, is not of its image's `size` (height, width), or holds others
    than the classes and those that are ignored: 255 (where 0 was, if `reduced`) and the data set's ``ignore_index``;
    or its file has more than 8 bits, of which the loading transforms drop the upper ones."""
    if file.suffix.lower() == '.png':
        with file.open('rb') as opened:
            if opened.read(25)[24:] == b'\x10':
                raise UserError(f'{file} has 16 bits a pixel; save label maps with 8, such as those of ADE20K.')
    if labels.ndim != 2:
        raise UserError(f'{file} has colours; a label map has one channel, whose values are the indices of classes.')
    if size is not None and labels.shape != tuple(size[:2]):
        raise UserError(f'{file} is {labels.shape[1]}x{labels.shape[0]}, but its image {size[1]}x{size[0]} pixels.')
    present = np.setdiff1d(labels, (ignored, 255))
    if len(present) and present[-1] >= classes:
        others = f'{"0 and " * reduced}{"" if ignored == 255 else f"{ignored} and "}255'
        allowed = f'{int(reduced)} to {classes - 1 + reduced}, and {others} for pixels that are ignored'
        raise UserError(
            f'{file} holds the label {present[-1] + reduced}, but there are {classes} classes ({allowed}); '
            'correct the label map, or metainfo and reduce_zero_label of the data set.'
        )
