"""Pascal VOC's XML files, read and written."""

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError, counted, some
from .records import Annotation, DataSet, Losses, Record, box_between
from .sources import SPLITS, Source, common_folder, lines_of, named_splits, number, read_xml

FOLDERS = ('JPEGImages', 'images')
LABEL_MAP = 'labelmap.txt'  # CVAT's list of the classes


def read_voc(source: Source, files: Sequence[Path]) -> DataSet:
    """Read an image and its boxes from each file.

    Coordinates are those of the corners, from 0, as most tools write them. In files of the original PASCAL VOC, pixels
    are counted from 1 and the last pixel is inside: 1 is subtracted from the left and upper one.
    """
    folder = common_folder(files)
    data = DataSet(source.root, 'voc', f'Pascal VOC annotations: {len(files)} XML files in {source.relative(folder)}.')
    roots = {file: read_xml(file) for file in files}
    used = {name for root in roots.values() for name in map(_name, root.iter('object'))}
    data.classes = _classes(source, used, data.notes)
    labels = {name: i for i, name in enumerate(data.classes)}
    images = {file: image for file, root in roots.items() if (image := _image(source, file, root))}
    if missing := [source.relative(file) for file in files if file not in images]:
        folders = [file.parent.parent / name for file in files[:1] for name in FOLDERS]
        problem = f'{counted(len(missing), "XML file")} of {len(files)} have no image ({some(missing)})'
        raise UserError(f'{problem}; put the images into {folders[0]}, set their folder, or remove the files.')
    original = []
    for split, members in _splits(source, files, data.notes).items():
        records = data.splits[split] = []
        for file in dict.fromkeys(members):
            root, image = roots[file], images[file]
            owner, database = (root.findtext(f'source/{key}') or '' for key in ('annotation', 'database'))
            if one_based := owner.startswith('PASCAL VOC') or database.startswith('The VOC20'):
                original.append(file)
            sizes = (root.findtext(f'size/{side}') or 0 for side in ('width', 'height'))
            width, height = (int(number(size, str(image))) for size in sizes)
            record = Record(image.name, image, width, height)
            for i, entry in enumerate(root.iter('object'), start=1):
                record.annotations.append(_annotation(entry, f'{file}: object {i}', labels, one_based, data.losses))
            records.append(record)
    if original:
        data.notes.append(f'{counted(len(original), "file")} of PASCAL VOC count pixels from 1; 1 is subtracted.')
    data.splits = named_splits(data.splits)
    return data


def _name(entry: ET.Element) -> str:
    return (entry.findtext('name') or '').strip()


def _classes(source: Source, used: set[str], notes: list[str]) -> list[str]:
    """Return the classes in the order of ``labelmap.txt``, else sorted by name."""
    files = [file for file in source.files if file.name == LABEL_MAP]
    if not files:
        notes.append('The classes are sorted by name, because VOC does not list them.')
        return sorted(used)
    lines = [line for _, line in lines_of(files[0]) if not line.startswith('#')]
    rows = [line.rsplit(':', 3) for line in lines]  # name, colour, parts, actions
    names = [row[0] for row in rows if row[0] != 'background' or row[0] in used or not row[1]]
    if unknown := sorted(used - {*names}):
        raise UserError(f'{files[0]} does not list the classes {some(unknown)}; add them.')
    return list(dict.fromkeys(names))


def _image(source: Source, file: Path, root: ET.Element) -> Path | None:
    """Return the image with the name of the file, else that of the element ``filename`` or ``path``."""
    folders = [file.parent]
    parts = file.parts
    if 'Annotations' in parts:  # Annotations/train/1.xml belongs to JPEGImages/train/1.jpg
        i = len(parts) - 1 - parts[::-1].index('Annotations')
        folders = [Path(*parts[:i], name, *parts[i + 1 : -1]) for name in FOLDERS] + [Path(*parts[:i])]
    given = (root.findtext('filename') or '').strip()
    path = Path((root.findtext('path') or '').strip())
    for name in dict.fromkeys((file.stem + Path(given).suffix, file.stem)):
        if image := source.find(name, folders, stem=True):
            return image
    if given and (image := source.find(given, folders, stem=True)):
        return image
    return path if path.is_absolute() and path.is_file() else None


def _splits(source: Source, files: Sequence[Path], notes: list[str]) -> dict[str, list[Path]]:
    """Return the files of each split, from the lists in ``ImageSets/Main`` or from the names of folders."""
    splits: dict[str, list[Path]] = {}
    lists = [file for file in source.files if file.parts[-3:-1] == ('ImageSets', 'Main') and file.suffix == '.txt']
    names = {file.stem for file in lists}
    known = {file.with_suffix(''): file for file in files}
    for list_file in lists:
        name = list_file.stem
        if name == 'trainval' and not {'train', 'val'} & names:
            name = 'train'
        if name not in SPLITS and len(lists) > 1:  # lists of single classes, and others
            continue
        base = list_file.parents[2] / 'Annotations'
        ids = [(i, re.sub(r'\s+-?[01]$', '', line)) for i, line in lines_of(list_file)]  # without a number at the end
        paths = [known.get(base / name) for _, name in ids]
        if not any(paths):
            notes.append(f'{source.relative(list_file)} lists images without annotations; it is not read.')
            continue
        for (i, image), path in zip(ids, paths, strict=True):
            if path is None:
                raise UserError(f'{list_file}:{i}: {base / image}.xml does not exist; fix or remove the line.')
            splits.setdefault(SPLITS.get(name, name), []).append(path)
    if not splits:
        for file in files:
            splits.setdefault(source.split_of(file), []).append(file)
    listed = {file for members in splits.values() for file in members}
    if others := [source.relative(file) for file in files if file not in listed]:
        notes.append(f'{counted(len(others), "file")} are in no list of ImageSets/Main and not read ({some(others)}).')
    return splits


def _annotation(entry: ET.Element, place: str, labels: dict[str, int], one_based: bool, losses: Losses) -> Annotation:
    name = _name(entry)
    if not name:
        raise UserError(f'{place} has no name; add it.')
    texts = [entry.findtext(f'bndbox/{corner}') for corner in ('xmin', 'ymin', 'xmax', 'ymax')]
    if None in texts:
        raise UserError(f'{place} ({name}) has no bndbox with xmin, ymin, xmax and ymax; add it.')
    left, top, right, bottom = (number(text, place) for text in texts)
    if left > right or top > bottom:
        losses.changed['the corners of their boxes are exchanged'].append(place)
        left, right, top, bottom = min(left, right), max(left, right), min(top, bottom), max(top, bottom)
    if (entry.findtext('difficult') or '0').strip() == '1':
        losses.changed['"difficult" is not read, so they count as all others'].append(place)
    points = [child for child in entry.iterfind('polygon/*') if re.fullmatch(r'[xy]\d+', child.tag)]  # of Roboflow
    polygon = tuple(number(child.text, place) for child in points)
    box = box_between(left - one_based, top - one_based, right, bottom)
    return Annotation(labels[name], box, (polygon,) if len(polygon) >= 6 else (), origin=place)


def write_voc(folder: Path, splits: dict[str, list[Record]], classes: Sequence[str], losses: Losses) -> dict[str, str]:
    """Write an XML file for each image, and return the folder of each split below ``JPEGImages``.

    Splits are lists of names. If two splits have an image of the same name, each has a folder.
    """
    stems = [Path(record.name).with_suffix('').as_posix() for records in splits.values() for record in records]
    parents = {split: '' if len(stems) == len({*stems}) else f'{split}/' for split in splits}
    for split, records in splits.items():
        names = [parents[split] + Path(record.name).with_suffix('').as_posix() for record in records]
        if repeated := [name for name, times in Counter(names).items() if times > 1]:
            raise UserError(f'Two images are called {repeated[0]}, so they would share an XML file; rename one.')
        for name, record in zip(names, records, strict=True):
            file = folder / 'Annotations' / f'{name}.xml'
            file.parent.mkdir(parents=True, exist_ok=True)
            tree = ET.ElementTree(_element(record, classes, losses))
            ET.indent(tree)
            tree.write(file, encoding='utf-8', xml_declaration=True)
        file = folder / 'ImageSets' / 'Main' / f'{split}.txt'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(''.join(f'{name}\n' for name in names), encoding='utf-8')
    lines = ['# label:color_rgb:parts:actions', *(f'{name}:::' for name in classes)]
    (folder / LABEL_MAP).write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return parents


def _element(record: Record, classes: Sequence[str], losses: Losses) -> ET.Element:
    root = ET.Element('annotation')
    ET.SubElement(root, 'filename').text = record.name
    size = ET.SubElement(root, 'size')
    ET.SubElement(size, 'width').text = str(record.width)
    ET.SubElement(size, 'height').text = str(record.height)
    for annotation in record.annotations:
        name = f'{record.name} {annotation.origin}'.strip()
        if annotation.crowd:
            losses.dropped['VOC has no crowd regions'].append(name)
            continue
        if annotation.polygons or annotation.rle is not None:
            losses.changed['VOC has no outlines or masks, so the box remains'].append(name)
        element = ET.SubElement(root, 'object')
        ET.SubElement(element, 'name').text = classes[annotation.label]
        ET.SubElement(element, 'difficult').text = '0'
        box = ET.SubElement(element, 'bndbox')
        left, top, width, height = annotation.box
        corners = dict(xmin=left, ymin=top, xmax=left + width, ymax=top + height)
        for key, value in corners.items():
            ET.SubElement(box, key).text = f'{value:.6f}'.rstrip('0').rstrip('.')
    return root
