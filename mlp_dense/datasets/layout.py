"""Layout of a data set: leaves of its wrappers, annotation file, folder of images, class names.

A data set is its config, or, except for `dataset_meta`, the built object, whose paths contain ``data_root`` already.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS


def leaves(dataset: Any) -> Iterator[Any]:
    """Yield the data sets inside wrappers such as RepeatDataset and ConcatDataset."""
    inner = _get(dataset, 'datasets') or [child for child in (_get(dataset, 'dataset'),) if child is not None]
    if not inner:
        yield dataset
    for child in inner:
        yield from leaves(child)


def annotation_file(dataset: Any) -> Path | None:
    """Return the annotation file of a data set, None if it has none."""
    name = _get(dataset, 'ann_file')
    return Path(_root(dataset), name) if name else None


def image_folder(dataset: Any) -> Path | None:
    """Return the folder that image names refer to, None if the data set has none."""
    prefixes, root = _get(dataset, 'data_prefix') or {}, _root(dataset)
    prefix = prefixes.get('img', prefixes.get('img_path'))  # keys of mmdet and of mmsegmentation
    has_folder = root or 'img' in prefixes or 'img_path' in prefixes
    return Path(root, prefix or '') if has_folder else None


def paths_of(dataset: Any) -> list[Path]:
    """Return all paths that a data set reads from: annotation file and folders."""
    folders = [Path(_root(dataset), prefix) for prefix in (_get(dataset, 'data_prefix') or {}).values()]
    return [annotation_file(dataset) or Path(_root(dataset)), *folders]


def dataset_meta(dataset: Any) -> dict[str, Any]:
    """Return ``classes`` and ``palette`` of a data set in a config, from its ``metainfo``, its class or its files."""
    dataset = next(leaves(dataset))
    with DATASETS.switch_scope_and_registry(None) as registry:  # the default scope
        dataset_class = registry.get(dataset.type)
    if hasattr(dataset_class, 'read_meta') and not dataset.get('metainfo'):
        return dataset_class.read_meta(dataset)
    return dict(dataset.get('metainfo') or getattr(dataset_class, 'METAINFO', {}))


def _get(dataset: Any, key: str) -> Any:
    return dataset.get(key) if isinstance(dataset, dict) else getattr(dataset, key, None)


def _root(dataset: Any) -> str:
    return (dataset.get('data_root') or '') if isinstance(dataset, dict) else ''
