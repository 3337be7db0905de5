"""Checks of the data that a config names, before anything is built."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
from mmengine.config import Config
from mmengine.registry import DATASETS

from ..errors import UserError
from .configs import evaluators, leaves, walk


def check_data(cfg: Config, name: str) -> None:
    """Finds what a loader (``train``, ``val``, ``test``) reads. UserError: it is missing, or class counts differ."""
    for dataset in leaves(cfg[f'{name}_dataloader'].dataset):
        root = Path(dataset.get('data_root') or '')
        prefixes = (dataset.get('data_prefix') or {}).values()
        wanted = [root / (dataset.get('ann_file') or ''), *(root / prefix for prefix in prefixes)]
        wanted += [Path(evaluator.ann_file) for evaluator in evaluators(cfg, name) if evaluator.get('ann_file')]
        for path in wanted:
            if ':/' not in str(path) and not path.exists():
                need = f'{path} does not exist, and the {name} data of this config are read from there'
                raise UserError(f'{need}; put the data there, or say where they are with --data-root.')
        if classes := dataset_meta(dataset).get('classes'):
            check_class_count(cfg.model, classes, f'the {name} data ({dataset.type})')


def check_class_count(model: Any, classes: Sequence[str], owner: str) -> None:
    """UserError: a ``num_classes`` in the config of a model differs from the class names of their `owner`, a plural."""
    for where, _, key, value in walk(model, 'model.'):
        if key == 'num_classes' and value != len(classes):
            raise UserError(f'{where} is {value}, but {owner} have {len(classes)} classes: make them equal.')


def dataset_meta(dataset: Any) -> dict[str, Any]:
    """What a data set says of itself (``classes``, ``palette``), in its config or in its class."""
    dataset = next(leaves(dataset))
    with DATASETS.switch_scope_and_registry(None) as registry:  # the default scope
        return dict(dataset.get('metainfo') or getattr(registry.get(dataset.type), 'METAINFO', {}))


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
            dataset.pipeline.transforms[i] = _Reading(transform)


class _Reading:
    """Runs a loading transform; what cannot be read becomes an error that names the file."""

    def __init__(self, transform: Any):
        self.transform = transform

    def __call__(self, results: dict) -> dict:
        try:
            return self.transform(results)
        except Exception as error:  # whatever the decoders of OpenCV and Pillow raise
            for file in filter(None, map(results.get, ('img_path', 'seg_map_path'))):
                if cv2.imread(str(file), cv2.IMREAD_UNCHANGED) is None:
                    raise UserError(f'{file} is missing or no readable image; replace or remove it.') from error
            raise
