"""Findings about annotation files in COCO's format, and about the objects of any detection data set."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..datasets.annotations import DATASET, METRIC, NUMBERED, Repaired, repair
from ..datasets.coco import read_coco
from ..errors import UserError
from .data_config import Reading
from .findings import STOPS, Finding


@dataclass
class Contents:
    """Contents of a data set: files, and its objects if it is one for detection."""

    images: list[str] = field(default_factory=list)
    label_maps: list[str] = field(default_factory=list)
    objects: Counter = field(default_factory=Counter)  # number of objects that are used for training, by class
    detection: bool = False
    sizes: list[tuple[float, float, float, float]] = field(default_factory=list)  # width and height of object and image


def contents_of(dataset: Any) -> Contents:
    """Return the contents of a data set."""
    contents = Contents()
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        if 'img_bytes' not in info:
            contents.images.append(str(info['img_path']))
        if info.get('seg_map_path'):
            contents.label_maps.append(str(info['seg_map_path']))
        for instance in info.get('instances', ()):
            contents.detection = True
            if not instance.get('ignore_flag') and 'bbox' in instance:
                contents.objects[instance['bbox_label']] += 1
                left, top, right, bottom = instance['bbox']
                contents.sizes.append((right - left, bottom - top, info.get('width', 0), info.get('height', 0)))
    contents.detection |= hasattr(dataset, 'cat_ids')
    return contents


def annotation_findings(name: str, dataset: Any, foreign_metric: bool = False) -> Iterator[Finding]:
    """Yield the problems of an annotation file that is in COCO's format.

    The types of mmdet fail or ignore annotations that those of this package repair; `foreign_metric` is whether the
    metric is that of mmdet.
    """
    repaired, is_ours = getattr(dataset, 'repaired', None), hasattr(dataset, 'repaired')
    if repaired is None:
        if not _is_coco(dataset):
            return
        try:
            repaired = repair_file(Path(dataset.ann_file), dataset)
        except UserError as error:
            yield Finding('error', name, STOPS, 1, (str(error),))
            return
    file = dataset.ann_file
    if difference := _order_difference(dataset, repaired.names):
        yield Finding('error', name, STOPS, 1, (f'{file} {difference}',))
    for problem, (count, ids) in repaired.problems.items():
        severity, remedy, owner = problem.severity, problem.remedy, problem.repaired_by
        if (owner == DATASET and not is_ours) or (owner == METRIC and foreign_metric):
            has_wrong_ap = problem is NUMBERED and all(isinstance(i, int) for i in ids)  # others end the validation
            severity, remedy = (
                'warning' if has_wrong_ap else 'error',
                f"set type='mlp_dense.{owner}', which repairs them",
            )
        elif owner == METRIC and severity == 'note':
            continue
        examples = tuple(f'id {i}' for i in ids)
        yield Finding(severity, name, f'annotations {problem.text} in {file}', count, examples, remedy)
    if not repaired.usable:
        if name == 'train' or (name == 'val' and repaired.problems):
            yield Finding('error', name, STOPS, 1, (nothing_usable(file, repaired),))
        else:  # the images may have no object on purpose
            problem = 'files without a usable annotation: the metrics are undefined'
            yield Finding('warning', name, problem, 1, (str(file),), 'add annotations')


def repair_file(file: Path, dataset: Any) -> Repaired:
    """Read an annotation file for a data set, and return what a repair would find."""
    loading = [transform.transform for transform in dataset.pipeline.transforms if isinstance(transform, Reading)]
    masks = any(getattr(transform, 'with_mask', False) for transform in loading)
    return repair(read_coco(file), dataset.metainfo.get('classes'), masks)


def object_findings(name: str, dataset: Any, contents: Contents) -> Iterator[Finding]:
    """Yield the classes of a detection data set without an object; an error if no class has one."""
    classes = list(dataset.metainfo.get('classes', ()))
    if not contents.detection or not classes or (hasattr(dataset, 'repaired') and not dataset.repaired.usable):
        return
    if not contents.objects and name == 'train':
        yield Finding(
            'error', name, STOPS, 1, (f'No annotation of {_source(dataset)} can be used for training; add objects.',)
        )
    elif empty := [str(label) for i, label in enumerate(classes) if not contents.objects[i]]:
        remedy = 'add or move images with them, or remove the classes'
        severity, remedy = ('warning', remedy) if name == 'train' else ('note', '')
        yield Finding(severity, name, 'classes without an object', len(empty), tuple(empty[:3]), remedy)


def _source(dataset: Any) -> str:
    return str(getattr(dataset, 'ann_file', '') or getattr(dataset, 'data_root', '') or type(dataset).__name__)


def _is_coco(dataset: Any) -> bool:
    """Whether a data set of mmdet reads COCO instances; LVIS and panoptic segmentation have other APIs."""
    api = getattr(dataset, 'COCOAPI', None)
    return api is not None and api.__name__ == 'COCO' and Path(dataset.ann_file).is_file()


def nothing_usable(file: str | Path, repaired: Repaired) -> str:
    """Return the error of a file without a usable annotation, with the reasons."""
    unusable = {problem: count for problem, (count, _) in repaired.problems.items() if not problem.usable}
    if not unusable:
        return f'{file} has no usable annotation (it has none); add annotations.'
    reasons = ', '.join(f'{count} {problem.text}' for problem, count in unusable.items())
    return f'{file} has no usable annotation ({reasons}); {max(unusable, key=unusable.__getitem__).remedy}.'


def _order_difference(dataset: Any, names: Mapping[Any, str]) -> str | None:
    """Return a message if the order of classes differs: mmdet numbers them by the file and names them by the config."""
    in_file, classes = [names.get(i) for i in dataset.cat_ids], list(dataset.metainfo.get('classes', ()))
    for i, (label, expected) in enumerate(zip(in_file, classes, strict=False)):
        if label != expected:
            problem = f'has {label!r} as class {i}, but metainfo has {expected!r}: names would be exchanged'
            return f'{problem}; set metainfo to the order of the file: {", ".join(map(str, in_file))}.'
    return None
