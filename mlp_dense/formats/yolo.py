"""YOLO's text files with boxes and polygons, read and written."""

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from ..datasets import SUFFIXES
from ..errors import UserError, counted, some
from .records import Annotation, Box, DataSet, Losses, Polygon, Record, box_of, outlined, signed_area
from .sources import SPLITS, Source, image_size, lines_of, named_splits, number, read_text

TOLERANCE = 0.01  # fractions of an image by which a box may exceed it, from rounding in other tools
CLASS_FILES = ('classes.txt', 'obj.names', 'predefined_classes.txt')
Lists = dict[str, list[Path]]  # images of each split


def yolo_files(source: Source) -> list[Path]:
    """Return the file with the classes: YAML with ``names``, ``obj.data``, or a list; an empty list if none."""
    for files in (
        [file for file in source.with_suffix('.yaml', '.yml') if _is_data(_read_yaml(file))],
        [file for file in source.with_suffix('.data') if re.search(r'^\s*names\s*=', read_text(file), re.MULTILINE)],
        [file for file in source.with_suffix('.txt', '.names') if file.name in CLASS_FILES and _has_labels(source)],
    ):
        if files:
            depth = min(len(file.parts) for file in files)
            return [file for file in files if len(file.parts) == depth]
    return []


def unnamed(source: Source) -> Path | None:
    """Return the first YAML file with the key ``train`` of a source in which no file has ``names``, or None."""
    contents = ((file, _read_yaml(file)) for file in source.with_suffix('.yaml', '.yml'))
    return next((file for file, content in contents if isinstance(content, dict) and 'train' in content), None)


def _has_labels(source: Source) -> bool:
    """Whether a text file has the name of an image."""
    return any(file.stem.lower() in source.images for file in source.files if file.suffix.lower() == '.txt')


def read_yolo(source: Source, files: Sequence[Path]) -> DataSet:
    """Read the images of each split and their label files."""
    (file, *others) = files
    if others:
        names = some([source.relative(each) for each in files])
        raise UserError(f'{source.path} has {len(files)} lists of classes ({names}); set one of the files.')
    data = DataSet(source.root, 'yolo', f'YOLO labels with the classes of {source.relative(file)}.')
    if file.suffix.lower() in ('.yaml', '.yml'):
        content = _read_yaml(file)
        data.classes, lists = _classes(content, file), _lists(content, file, data.notes)
    elif file.suffix == '.data':
        content = dict(re.findall(r'^\s*(\w+)\s*=\s*(.*?)\s*$', read_text(file), re.MULTILINE))
        (names_file,) = _resolve(content['names'], file.parent, data.notes) or [file.parent / content['names']]
        data.classes, lists = _class_names(names_file), _lists(content, file, data.notes)
    else:
        data.classes, lists = _class_names(file), {}
        for image in source.image_files:
            lists.setdefault(source.split_of(image), []).append(image)
    for split, images in lists.items():
        data.splits[split] = _records(source, sorted(set(images)), data)
    data.splits = named_splits(data.splits)
    return data


def _read_yaml(file: Path) -> Any:
    try:  # the base loader keeps names such as `no` and 1 as text
        return yaml.load(read_text(file), yaml.BaseLoader)
    except yaml.YAMLError as error:
        line = getattr(getattr(error, 'problem_mark', None), 'line', 0) + 1
        raise UserError(f'{file}:{line} is not YAML ({getattr(error, "problem", error)}); fix it.') from error


def _is_data(content: Any) -> bool:
    return isinstance(content, dict) and 'names' in content and not SPLITS.keys().isdisjoint(content)


def _classes(content: dict, file: Path) -> list[str]:
    """Return the names of a list, or of a dictionary whose keys are the numbers of the classes."""
    if 'kpt_shape' in content:
        raise UserError(f'{file} has kpt_shape: labels of keypoints are not read; export boxes or polygons.')
    names = content['names']
    if isinstance(names, dict):
        if sorted(names) != sorted(map(str, range(len(names)))):
            raise UserError(f'{file}: the keys of names are {some(list(names))}; set 0 to {len(names) - 1}.')
        names = [names[str(i)] for i in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f'{file}: names is {names!r}; set the list of the class names.')
    if content.get('nc', str(len(names))) != str(len(names)):
        raise UserError(f'{file}: nc is {content["nc"]}, but there are {len(names)} names; set the same number.')
    return _without_repetition(names, file)


def _class_names(file: Path) -> list[str]:
    return _without_repetition([name for _, name in lines_of(file)], file)


def _without_repetition(names: list[str], file: Path) -> list[str]:
    for i, name in enumerate(names):
        if name in names[:i]:
            raise UserError(f'{file}: the classes {names.index(name)} and {i} are both {name!r}; rename one.')
    return names


def _lists(content: dict, file: Path, notes: list[str]) -> Lists:
    """Return the images of the splits of a YAML file: of folders, of text files with paths, or of lists of these."""
    base = file.parent / str(content.get('path') or '')
    lists: Lists = {}
    for key, entries in content.items():
        for entry in entries if isinstance(entries, list) else [entries] if key in SPLITS and entries else []:
            if key not in SPLITS or entry in ('null', '~'):
                continue
            found = _resolve(entry, base, notes) or _resolve(entry, file.parent, notes)
            if not found and SPLITS[key] == 'test':  # exports often name one that they do not contain
                notes.append(f'The test images {entry} of {file.name} do not exist.')
            elif not found:
                raise UserError(f'{file}: {key} is {entry!r}, which does not exist below {base}; fix the path.')
            for path in found:
                images = _listed(path, base, notes) if path.is_file() else Source(path).image_files
                lists.setdefault(SPLITS[key], []).extend(images)
    return lists


def _resolve(entry: str, base: Path, notes: list[str]) -> list[Path]:
    """Return the existing path of an entry, which may have been written for another folder or machine."""
    path = PurePosixPath(entry.replace('\\', '/'))
    if (exact := base / path).exists():
        return [Path(os.path.normpath(exact))]
    parts = [part for part in path.parts if part not in ('..', '.', '/')]
    for start in range(len(parts)):  # Roboflow writes ../train/images for train/images
        if (shorter := base.joinpath(*parts[start:])).exists():
            notes.append(f'{entry} does not exist; {shorter} is read.')
            return [shorter]
    return []


def _listed(file: Path, base: Path, notes: list[str]) -> list[Path]:
    """Return the images that a text file lists, relative to its folder or to `base`."""
    if file.suffix.lower() in SUFFIXES:
        return [file]
    images: list[Path] = []
    renamed: list[str] = []
    for i, name in lines_of(file):
        found = _resolve(name, file.parent, renamed) or _resolve(name, base, renamed)
        if not found:
            raise UserError(f'{file}:{i} lists the image {name!r}, which does not exist; fix or remove the line.')
        images += found
    if renamed:
        paths = counted(len(renamed), 'path')
        notes.append(f'{file} lists {paths} of another machine, found by their last folders and names.')
    return images


def _label_file(image: Path) -> Path | None:
    """Return the label file: in the folder ``labels`` instead of ``images``, or next to the image."""
    candidates = [image.with_suffix('.txt')]
    for i in range(len(image.parts) - 2, -1, -1):
        if image.parts[i].lower() == 'images':
            candidates.insert(0, Path(*image.parts[:i], 'labels', *image.parts[i + 1 :]).with_suffix('.txt'))
            break
    else:  # train/a.jpg and labels/train/a.txt, or labels/a.txt
        folder = image.parent
        candidates += [folder / 'labels' / f'{image.stem}.txt', folder.parent / 'labels' / f'{image.stem}.txt']
        candidates.append(folder.parent / 'labels' / folder.name / f'{image.stem}.txt')
    return next((file for file in candidates if file.is_file()), None)


def _records(source: Source, images: list[Path], data: DataSet) -> list[Record]:
    label_files = {image: _label_file(image) for image in images}
    if images and not any(label_files.values()):
        problem = f'No image in {images[0].parent} has a label file'
        raise UserError(f'{problem}; put {images[0].stem}.txt into the folder labels next to images.')
    if without := [source.relative(image) for image, file in label_files.items() if not file]:
        data.notes.append(f'{counted(len(without), "image")} without a label file have no object ({some(without)}).')
    folders = {file.parent for file in label_files.values() if file}
    paired = set(label_files.values())
    unpaired = [
        source.relative(file)
        for folder in sorted(folders)
        for file in sorted(folder.glob('*.txt'))
        if file not in paired and file.name not in CLASS_FILES and not file.name.startswith('.')
    ]
    if unpaired:
        data.notes.append(f'Not read: {counted(len(unpaired), "label file")} without an image ({some(unpaired)}).')
    records = []
    for image, file in label_files.items():
        record = Record(image.name, image, *image_size(image))
        for i, line in lines_of(file) if file else ():
            record.annotations.append(_annotation(line.split(), f'{file}:{i}', record, data.classes))
        records.append(record)
    return records


def _annotation(row: list[str], place: str, record: Record, classes: list[str]) -> Annotation:
    """Return the object of a row: class, then centre and size of a box, or the points of a polygon."""
    label = number(row[0], place)
    if label != int(label) or not 0 <= label < len(classes):
        allowed = f'0 to {len(classes) - 1} ({some(classes)})'
        raise UserError(f'{place} has the class {row[0]}, but the classes are {allowed}; fix the row or the names.')
    values = [number(value, place) for value in row[1:]]
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        hint = ' If the last number is a score, this is a prediction.' if len(values) == 5 else ''
        problem = f'{place} has {counted(len(row), "value")}; write class, x, y, width, height, or class and points'
        raise UserError(f'{problem}.{hint}')
    if outside := [value for value in values if not -TOLERANCE <= value <= 1 + TOLERANCE]:
        problem = f'{place} has the coordinate {outside[0]:g}, which is not a fraction of the image'
        raise UserError(f'{problem}; divide pixels by width and height.')
    if len(values) == 4:
        x, y, width, height = values
        values = [x - width / 2, y - height / 2, width, height]
    sides = (record.width, record.height)
    pixels = tuple(round(value * sides[i % 2], 3) + 0.0 for i, value in enumerate(values))  # without -0.0
    if len(values) == 4:
        return Annotation(int(label), Box(*pixels), origin=place)
    return outlined(int(label), pixels, place)


def write_yolo(folder: Path, splits: dict[str, list[Record]], classes: Sequence[str], losses: Losses) -> None:
    """Write ``data.yaml`` and a label file for each image in ``images/SPLIT``, and note what YOLO cannot express."""
    for split, records in splits.items():
        if split not in SPLITS:
            raise UserError(f'YOLO has no split {split!r}; use train, val and test, or another format.')
        files: dict[Path, Record] = {}
        for record in records:
            file = (folder / 'labels' / split / record.name).with_suffix('.txt')
            if file in files:
                raise UserError(f'{files[file].name} and {record.name} would share a label file; rename one.')
            files[file] = record
            rows = [_row(annotation, record, losses) for annotation in record.annotations]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(''.join(f'{row}\n' for row in rows if row), encoding='utf-8')
    content = {split: f'images/{split}' for split in splits} | dict(names=dict(enumerate(classes)))
    (folder / 'data.yaml').write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding='utf-8')


def _row(annotation: Annotation, record: Record, losses: Losses) -> str:
    """Return the row of an object, an empty text if YOLO cannot express it."""
    name = f'{record.name} {annotation.origin}'.strip()
    width, height = record.width, record.height
    left, top, *sides = annotation.box
    right, bottom = left + sides[0], top + sides[1]
    inside = max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)
    if annotation.crowd:
        losses.dropped['YOLO has no crowd regions'].append(name)
        return ''
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        losses.dropped['their box has no area inside of the image'].append(name)
        return ''
    if annotation.polygons:
        if len(annotation.polygons) > 1:
            reason = 'YOLO has one outline for each object, so several are joined by lines without width'
            losses.changed[reason].append(name)
        outline = joined(annotation.polygons)
        if max(abs(a - b) for a, b in zip(box_of([outline]), annotation.box, strict=True)) > 1e-3:
            losses.changed['YOLO derives the box from the outline'].append(name)
        values = outline
    else:
        if annotation.rle is not None:
            losses.changed['YOLO has no pixel masks, so the box remains'].append(name)
        centre = (inside[0] + inside[2]) / 2, (inside[1] + inside[3]) / 2
        values = (*centre, inside[2] - inside[0], inside[3] - inside[1])
    fractions = [value / (height if i % 2 else width) for i, value in enumerate(values)]
    clipped = [min(max(value, 0.0), 1.0) for value in fractions]
    if clipped != fractions or (not annotation.polygons and inside != (left, top, right, bottom)):
        losses.changed['parts outside of the image are cut off'].append(name)
    return ' '.join([str(annotation.label), *(f'{value:.9f}'.rstrip('0').rstrip('.') for value in clipped)])


def joined(polygons: Sequence[Polygon]) -> Polygon:
    """Return one outline of several polygons, joined at their nearest points by lines that run in both directions."""
    outline = np.reshape(polygons[0], (-1, 2))
    for polygon in polygons[1:]:
        points = np.reshape(polygon, (-1, 2))
        if signed_area(polygon) * signed_area(outline.ravel().tolist()) < 0:
            points = points[::-1]
        distances = np.square(outline[:, None] - points[None]).sum(2)
        i, j = np.unravel_index(distances.argmin(), distances.shape)
        outline = np.concatenate([outline[: i + 1], points[j:], points[: j + 1], outline[i:]])
    return tuple(outline.ravel().tolist())
