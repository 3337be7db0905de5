"""Explanations of errors of data sets under construction."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..datasets.annotations import DATASET, repair
from ..datasets.coco_json import read_coco
from ..datasets.layout import annotation_file, dataset_meta, image_folder, leaves
from ..errors import UserError
from .coco_data import nothing_usable
from .data_files import images_by_suffix


@contextmanager
def explained_data(dataloader: Any) -> Iterator[None]:
    """Raise UserError if the data of a loader's config explain an error inside, which passes unchanged otherwise."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # data sets raise many types for invalid annotations
        dataset = dataloader.get('dataset') if isinstance(dataloader, dict) else None
        for leaf in leaves(dataset) if isinstance(dataset, dict) else ():
            if explanation := _in_annotations(leaf) or _in_suffixes(leaf):
                raise UserError(explanation) from error
        raise


def _in_annotations(dataset: dict) -> str:
    """Return what a data set of mmdet cannot read. Raises UserError if the file has no usable structure."""
    file = annotation_file(dataset)
    if not str(dataset.get('type')).endswith('CocoDataset') or file is None or not file.is_file():
        return ''
    masks = any(transform.get('with_mask') for transform in dataset.get('pipeline') or ())
    classes, is_of_mmdet = dataset_meta(dataset).get('classes'), not str(dataset.get('type')).startswith('mlp_dense.')
    content = read_coco(file)
    repaired = repair(content, classes, masks)
    for problem, (count, ids) in repaired.problems.items():
        if problem.repaired_by == DATASET and is_of_mmdet:
            return f'{file}: {count} annotations {problem.text}, for example id {ids[0]}; {problem.replacement}.'
    return '' if repaired.usable or not content['images'] else nothing_usable(file, repaired)


def _in_suffixes(dataset: dict) -> str:
    """Return the suffixes in the folder of images if none of them is that of the data set."""
    folder, suffix = image_folder(dataset), dataset.get('img_suffix', '.jpg')
    if annotation_file(dataset) is not None or folder is None or not Path(folder).is_dir():
        return ''
    found = images_by_suffix(folder)
    if not found or any(file.endswith(suffix) for files in found.values() for file in files):
        return ''
    counts = ', '.join(f'{len(files)} with {other}' for other, files in found.items())
    return f'{folder} has no image with the suffix {suffix}, but {counts}; set img_suffix={next(iter(found))!r}.'
