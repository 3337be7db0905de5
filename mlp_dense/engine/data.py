"""Checks of the data that a config names, before anything is built."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from ..errors import UserError
from .configs import leaves, walk


def check_data(cfg: Config, name: str) -> None:
    """Compares what a loader (``train``, ``val``, ``test``) reads with what is there.

    Raises:
        UserError: data are missing, or class counts differ.
    """
    for dataset in leaves(cfg[f'{name}_dataloader'].dataset):
        root = Path(dataset.get('data_root') or '')
        prefixes = (dataset.get('data_prefix') or {}).values()
        evaluators = cfg.get(f'{name}_evaluator') or []
        evaluators = [evaluators] if isinstance(evaluators, dict) else evaluators
        wanted = [root / (dataset.get('ann_file') or ''), *(root / prefix for prefix in prefixes)]
        wanted += [Path(evaluator.ann_file) for evaluator in evaluators if evaluator.get('ann_file')]
        for path in wanted:
            if ':/' not in str(path) and not path.exists():
                raise UserError(
                    f'{path} does not exist, and the {name} data of this config are read from there; put the data '
                    'there, or say where they are with --data-root.'
                )
        if classes := dataset_meta(dataset).get('classes'):
            check_class_count(cfg.model, classes, f'the {name} data ({dataset.type})')


def check_class_count(model: Any, classes: Sequence[str], owner: str) -> None:
    """Compares each ``num_classes`` in the config of a model with the class names of its `owner`, a plural.

    Raises:
        UserError: they differ.
    """
    for where, _, key, value in walk(model, 'model.'):
        if key == 'num_classes' and value != len(classes):
            raise UserError(f'{where} is {value}, but {owner} have {len(classes)} classes: make them equal.')


def dataset_meta(dataset: Any) -> dict[str, Any]:
    """What a data set says of itself (``classes``, ``palette``), in its config or in its class."""
    dataset = next(leaves(dataset))
    with DATASETS.switch_scope_and_registry(None) as registry:  # the default scope
        return dict(dataset.get('metainfo') or getattr(registry.get(dataset.type), 'METAINFO', {}))
