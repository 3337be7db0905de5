"""A config for user data, written from what the data contain: classes, counts, paths and image sizes."""

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from .. import formats
from ..checkpoints.files import local_file
from ..checkpoints.matching import match_to_backbone
from ..checkpoints.reading import Checkpoint
from ..datasets import SUFFIXES
from ..errors import UserError, counted, some
from ..formats import DataSet
from ..formats.sources import image_size
from . import config_text
from .config_file import make_folder
from .config_text import Classes
from .training_plan import BACKBONES, SPLITS, Plan, check_choices, plan

OBJECT_HEADS, LABEL_HEADS = ('mask_rcnn', 'retinanet'), ('upernet', 'semantic_fpn')
FOLDERS_OF_FILES = re.compile('.*(image|img|mask|label|annot|gt)s?.*', re.IGNORECASE)  # not those of classes
UNLABELLED = ('background class', 'none', 'undefined', 'unknown', 'unlabeled', 'unlabelled', 'void')
UNCHANGED = re.compile(r': (\d+) -> \1$')  # line with the same number before and after a conversion
SAMPLE = 100  # images of a classifier whose sizes are read
BALANCED = dict(
    class_weight='Rare classes have larger weights in the loss (class_weight in the config).',
    oversample_thr='Images of rare classes are repeated (oversample_thr in the config).',
)  # sentences on options of the written config
ImageCounts = dict[str, Counter[str]]  # by split and class


class Choices(NamedTuple):
    """Choices of the user."""

    command: str  # the command line, for the first line of the config
    family: str = 'hire'  # class of the backbone, a key of BACKBONES
    arch: str | None = None  # its variant; the smallest one by default
    head: str | None = None  # one of HEADS; by default the one that suits the annotations
    weights: str | None = None  # file or URL of pretrained weights of the backbone
    format: str | None = None  # format of the annotations, if several are found
    colors: Path | None = None  # file with the colours or values of the classes of label maps
    seed: int = 0  # seed of the split, if the data have no validation split


def new_config(data_folder: Path, out: Path | None, choices: Choices) -> tuple[Path, list[str]]:
    """Write ``out/NAME.py`` for the data in a folder, and return its path and the lines to print.

    Annotations that mmdet or mmsegmentation cannot read in place are written into ``out/data``; images stay where they
    are. Without a validation split, a fifth of the images becomes one. After an error nothing remains.

    Args:
        data_folder: Folder of the data in any format of :mod:`mlp_dense.formats`, or of a folder for each class in
            ``train/`` and ``val/``; or an annotation file.
        out: New folder; by default ``DATA_FAMILY_HEAD`` in the working directory.
        choices: Model and reading of the data.

    Raises:
        UserError: The data cannot be read, or do not suit the choices; `out` exists.
    """
    choices = choices._replace(arch=check_choices(choices.family, choices.arch, choices.head))
    if not data_folder.exists():
        raise UserError(f'{data_folder} does not exist; pass the folder of the data.')
    root = data_folder.resolve()
    if out is not None:
        _check_new(out, root)
    choices = choices._replace(weights=choices.weights and _checked_weights(choices))
    folders = class_folders(root) if choices.head in (None, 'classifier') else {}
    if choices.head == 'classifier' or (folders and not _has_annotations(root, choices.format)):
        return _classifier(root, folders, out, choices)
    return _annotated(root, out, choices)


def _check_new(out: Path, root: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f'{out} exists and is not an empty folder; pass a new folder with --out.')
    if out.resolve().is_relative_to(root):
        raise UserError(f'{out} is in the folder of the data; pass a folder outside of {root} with --out.')


def _checked_weights(choices: Choices) -> str:
    """Return the absolute path of pretrained weights, or their URL. Raises CheckpointError if they do not fit."""
    assert choices.weights and choices.arch
    file = local_file(choices.weights)
    with torch.device('meta'):
        backbone = BACKBONES[choices.family](choices.arch)
    match_to_backbone(backbone, Checkpoint.read(choices.weights))
    return choices.weights if '://' in choices.weights else file.resolve().as_posix()


@contextmanager
def _new_file(out: Path | None, root: Path, choices: Choices) -> Iterator[Path]:
    """Yield the file of a config in a new folder, which is removed after an error."""
    if out is None:
        name = root.name if root.is_dir() else root.stem
        out = Path(f'{name or "data"}_{choices.family}_{choices.head}')
        _check_new(out, root)
    existed = out.exists()
    try:
        make_folder(out)
        yield out / f'{out.resolve().name}.py'
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)  # it was new or empty
        if existed:
            out.mkdir(exist_ok=True)
        raise


# Detection and segmentation


def _annotated(root: Path, out: Path | None, choices: Choices) -> tuple[Path, list[str]]:
    data = formats.read(root, choices.format, colors=choices.colors)
    choices = choices._replace(head=_suitable_head(data, choices.head))
    data = _with_splits(data, choices.seed)
    if data.format == 'labels':
        _check_labels(data, choices)
    else:
        _check_objects(data)
    text_of = config_text.segmentor if data.format == 'labels' else config_text.detector
    sizes = [(record.width, record.height) for record in data.splits['train']]
    training = _plan(choices, {split: len(records) for split, records in data.splits.items()}, sizes)
    with _new_file(out, root, choices) as file:
        written = formats.places_of(data, file.parent.resolve() / 'data')
        classes = _classes_of(data)
        text = text_of(training, classes, written.places, data.root)
        file.write_text(text, encoding='utf-8')
    changes = [line for line in written.lines if not UNCHANGED.search(line)]
    if written.lines:
        changes.insert(0, f'Converted for training: {file.with_name("data")}.')
    chosen = [line for option, line in BALANCED.items() if option in text]
    return file, [*data.lines(), *changes, *training.lines(), *chosen, classes.line()]


def _suitable_head(data: DataSet, head: str | None) -> str:
    """Return the chosen head, by default one that suits the annotations. Raises UserError if it cannot use them."""
    heads = LABEL_HEADS if data.format == 'labels' else OBJECT_HEADS
    if head not in (None, *heads):
        raise UserError(f'{data.found} The head {head} cannot use them; pass --head {" or ".join(heads)}.')
    if data.format == 'labels':
        return head or 'upernet'
    objects = [annotation for record in data.records() for annotation in record.annotations if not annotation.crowd]
    boxes = [annotation.origin for annotation in objects if not annotation.polygons and annotation.rle is None]
    if not boxes:
        if head is None:
            data.notes.append('All objects have outlines; for boxes only, pass --head retinanet.')
        return head or 'mask_rcnn'
    text = f'{len(boxes)} of {counted(len(objects), "object")} have no outline ({some(boxes)})'
    if head == 'mask_rcnn':
        raise UserError(f'{text}; pass --head retinanet, or remove these objects.')
    if head is None and len(boxes) < len(objects):
        data.notes.append(f'{text}, so that the config is for boxes.')
    return 'retinanet'


def _with_splits(data: DataSet, seed: int) -> DataSet:
    """Return a data set with the splits train, val and, if the source has it, test."""
    if 'train' in data.splits and 'val' not in data.splits and 'test' in data.splits:
        data.notes.append('There is no validation split: the test split is used for it.')
        _rename(data, dict(train='train', val='test'))
    if not {'train', 'val'} <= data.splits.keys():
        data = formats.split(data, (0.8, 0.2), seed)
    if others := [split for split in data.splits if split not in SPLITS]:
        data.notes.append(f'Not used: the splits {", ".join(others)}.')
        _rename(data, {split: split for split in SPLITS if split in data.splits})
    return data


def _rename(data: DataSet, names: dict[str, str]) -> None:
    """Keep the splits that are values of `names`, under their new names, the keys."""
    data.splits = {new: data.splits[old] for new, old in names.items()}
    data.places = {new: data.places[old] for new, old in names.items() if old in data.places}


def _check_labels(data: DataSet, choices: Choices) -> None:
    if len(data.classes) < 2:
        problem = f'The label maps of {data.root} have one class ({", ".join(data.classes)}), so nothing can be learned'
        raise UserError(f'{problem}; label the other pixels as a second class, such as background.')
    if trained := [name for name in data.classes if name.lower() in UNLABELLED]:
        owner = choices.colors or 'labelmap.txt or classes.txt'
        data.notes.append(f'{some(trained)} is a class; to ignore its pixels, call it "ignored" in {owner}.')


def _check_objects(data: DataSet) -> None:
    for split, records in data.splits.items():
        labels = {annotation.label for record in records for annotation in record.annotations if not annotation.crowd}
        if not labels:
            remedy = 'label some images' if split == 'train' else 'label some images, or remove the split'
            raise UserError(f'The split {split} of {data.root} has no object, except for crowds; {remedy}.')
        if absent := [name for i, name in enumerate(data.classes) if i not in labels]:
            data.notes.append(f'{counted(len(absent), "class")} without an object in {split}: {some(absent)}.')


def _classes_of(data: DataSet) -> Classes:
    if data.format == 'labels':
        pixels = np.zeros(256, np.int64)
        for record in data.splits['train']:  # the pixels of `data` are those of all splits
            pixels += np.bincount(formats.label_map(record, data).ravel(), minlength=256)
        if absent := [name for name, amount in zip(data.classes, pixels, strict=False) if not amount]:
            remedy = 'add images with them, or make another split with mlp-dense data convert --split'
            problem = f'{counted(len(absent), "class")} without a pixel for training: {some(absent)}'
            data.notes.append(f'{problem}; {remedy}.')
        if pixels[formats.IGNORED]:
            share = pixels[formats.IGNORED] / pixels.sum()
            data.notes.append(f'{share:.2%} of the pixels for training are ignored.')
        labelled = pixels[: len(data.classes)]
        amounts = 100 * labelled / max(1, labelled.sum())
        return Classes(
            'per cent of the labelled pixels for training', data.classes, amounts.tolist(), palette=_palette(data)
        )
    records = data.splits['train']
    labels = [[each.label for each in record.annotations if not each.crowd] for record in records]
    objects = Counter(label for image in labels for label in image)
    images = Counter(label for image in labels for label in {*image})
    counts = [objects[i] for i in range(len(data.classes))]
    frequencies = [images[i] / len(records) for i in range(len(data.classes))]
    return Classes('objects for training', data.classes, counts, frequencies)


def _palette(data: DataSet) -> list[tuple[int, ...]]:
    """Return the first colour of each class in label maps with colours, else an empty list."""
    colours: dict[int, tuple[int, ...]] = {}
    for key, label in (data.values or {}).items():
        if isinstance(key, tuple):
            colours.setdefault(label, key)
    return [colours[i] for i in range(len(data.classes))] if colours else []


def _plan(choices: Choices, images: dict[str, int], sizes: list[tuple[int, int]]) -> Plan:
    assert choices.arch and choices.head
    return plan(choices.command, choices.family, choices.arch, choices.head, choices.weights, images, sizes)


# Classification


def class_folders(root: Path) -> ImageCounts:
    """Return the number of images of each class in the folders ``SPLIT/CLASS``; empty if train or val has no class."""
    splits = {}
    for split in SPLITS:
        folders = [path for path in (root / split).glob('[!._]*') if path.is_dir()]
        folders = [path for path in folders if not FOLDERS_OF_FILES.fullmatch(path.name)]
        counts = {path.name: sum(file.suffix.lower() in SUFFIXES for file in path.rglob('[!.]*')) for path in folders}
        if any(counts.values()):
            splits[split] = Counter(counts)
    return splits if {'train', 'val'} <= splits.keys() else {}


def _has_annotations(root: Path, format: str | None) -> bool:
    try:
        formats.detect(root, format)
    except formats.NoFormatError:
        return False
    return True


def _classifier(root: Path, folders: ImageCounts, out: Path | None, choices: Choices) -> tuple[Path, list[str]]:
    if not folders:
        problem = f'{root} has no folders train/CLASS and val/CLASS with images'
        raise UserError(f'{problem}; move the images of each class into such folders.')
    for split, counts in folders.items():
        if different := sorted(counts.keys() ^ folders['train'].keys()):
            raise UserError(f'{root / split} has other classes than train ({some(different)}); make the same folders.')
    classes = sorted(folders['train'])
    if empty := [name for name in classes if not folders['train'][name]]:
        raise UserError(f'{root / "train"} has no image of {some(empty)}; add images or remove the folders.')
    if len(classes) < 2:
        problem = f'{root / "train"} has one class ({classes[0]}), so nothing can be learned'
        raise UserError(f'{problem}; add a second folder.')
    files = [file for file in sorted((root / 'train').rglob('[!.]*')) if file.suffix.lower() in SUFFIXES]
    sizes = [image_size(file) for file in files[:: max(1, len(files) // SAMPLE)]]
    choices = choices._replace(head='classifier')
    training = _plan(choices, {split: counts.total() for split, counts in folders.items()}, sizes)
    amounts = Classes('images for training', classes, [folders['train'][name] for name in classes])
    with _new_file(out, root, choices) as file:
        file.write_text(config_text.classifier(training, amounts, 'test' in folders, root), encoding='utf-8')
    return file, [f'Folders of {counted(len(classes), "class")} in {root}.', *training.lines(), amounts.line()]
