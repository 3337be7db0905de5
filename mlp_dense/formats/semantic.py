"""Label maps for segmentation: indices, palettes, colours, masks of two values, one mask for each class, 16 bits."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ..datasets.image_files import PILLOW_ERRORS, read_file
from ..errors import UnreadableError, UserError, counted, some
from .records import DataSet, Place, Record
from .sources import IMAGES, JOINED, LABELS, SPLITS, Source, common_folder, image_size, lines_of, named_splits
from .tables import IGNORED_NAMES, Colour, Table, table_of

IGNORED = 255
SIXTEEN = 65535  # ignored in maps of 16 bits
LABEL_SUFFIX = re.compile(rf'[ _.-](?:{LABELS}|seg)$', re.IGNORECASE)
Key = tuple[tuple[str, ...], str]
"""Folders without words such as "images" and "masks", and the name without suffix."""


def label_files(source: Source) -> list[Path]:
    """Return the label maps of a source that have an image."""
    return [file for _, maps in _pairs(source)[0] for file in maps.values()]


def read_labels(source: Source, files: Sequence[Path]) -> DataSet:
    """Read the label maps of all images. Each pixel is checked, so that no label is unknown."""
    pairs, notes = _pairs(source)
    data = DataSet(source.root, 'labels', '', notes=notes)
    splits: dict[str, list[Record]] = defaultdict(list)
    lists = [file for file in source.files if file.parts[-3:-1] == ('ImageSets', 'Segmentation')]  # of CVAT
    listed = {name: SPLITS[file.stem] for file in lists if file.stem in SPLITS for _, name in lines_of(file)}
    for image, maps in pairs:
        split = listed.get(image.stem) or source.split_of(image)
        splits[split].append(Record(image.name, image, *image_size(image), label_maps=maps))
    data.splits = named_splits(splits)
    several = len({name for _, maps in pairs for name in maps}) > 1
    kind = _read_masks(source, data) if several else _read_values(source, data)
    data.found = f'Label maps ({kind}) in {source.relative(common_folder(files))}.'
    if data.values and all(data.values[key] == key for key in data.values if key != SIXTEEN):
        data.places = _places(data)
    return data


def _pairs(source: Source) -> tuple[list[tuple[Path, dict[str, Path]]], list[str]]:
    """Return images with their label maps by class (the class is '' for a map of all classes), and notes."""
    maps: list[Path] = []
    images: dict[Key, Path] = {}
    for file in source.image_files:
        folders = ' '.join(JOINED.sub(r'\1 \2', folder) for folder in Path(source.relative(file)).parts[:-1]).lower()
        if re.search(rf'(?<![a-z]){LABELS}(?![a-z])', folders):
            maps.append(file)
        elif 'segmentationobject' not in folders:
            images[_key(source, file)] = file
    for folders_of_image, stem in list(images):  # a.jpg and a_mask.png in one folder
        if (bare := LABEL_SUFFIX.sub('', stem)) != stem and (folders_of_image, bare) in images:
            maps.append(images.pop((folders_of_image, stem)))
    found: dict[Path, dict[str, Path]] = defaultdict(dict)
    unpaired = []
    for file in maps:
        image, name = _image_of(_key(source, file), images)
        if image is None:
            unpaired.append(source.relative(file))
        elif name in found[image]:
            both = f'{source.relative(found[image][name])} and {source.relative(file)}'
            raise UserError(f'{both} are both label maps of {source.relative(image)}; keep one.')
        else:
            found[image][name] = file
    if len({name for by_class in found.values() for name in by_class}) == 1:  # a suffix such as _L is not a class
        for image, by_class in found.items():
            found[image] = dict.fromkeys([''], *by_class.values())
    notes = []
    if unpaired:
        notes.append(f'Not read: {counted(len(unpaired), "label map")} without an image ({some(unpaired)}).')
    if without := [source.relative(image) for image in images.values() if image not in found]:
        notes.append(f'Not read: {counted(len(without), "image")} without a label map ({some(without)}).')
    return sorted(found.items()), notes


def _key(source: Source, file: Path) -> Key:
    folders = []
    for folder in Path(source.relative(file)).parts[:-1]:
        words = re.split(r'[ _.-]+', JOINED.sub(r'\1 \2', folder))
        words = [word for word in words if not re.fullmatch(f'{LABELS}|{IMAGES}', word, re.IGNORECASE)]
        folders += ['_'.join(words)] if words else []
    return tuple(folders), file.stem


def _image_of(key: Key, images: Mapping[Key, Path]) -> tuple[Path | None, str]:
    """Return the image of a label map, and the class in the name of its folder or file."""
    folders, stem = key
    if key in images:
        return images[key], ''
    for i in range(len(folders)):  # masks/CLASS/a.png
        if image := images.get((folders[:i] + folders[i + 1 :], stem)):
            return image, folders[i]
    for separator in reversed(list(re.finditer(r'[^A-Za-z0-9]', stem))):  # masks/a_CLASS.png
        if image := images.get((folders, stem[: separator.start()])):
            return image, stem[separator.end() :]
    return None, ''


def read_pixels(file: Path, coloured: bool = False) -> np.ndarray:
    """Return the values (H, W) of a label map, or colours (H, W, 3) in red, green, blue, as int64.

    With `coloured` the result has the colours of a palette instead of its indices.
    """
    try:
        with Image.open(file) as image:
            mode = {'1': 'L', 'LA': 'L', 'RGBA': 'RGB', 'PA': 'RGB', 'CMYK': 'RGB', 'YCbCr': 'RGB'}.get(image.mode)
            pixels = np.asarray(image.convert('RGB' if coloured else mode) if coloured or mode else image)
    except PILLOW_ERRORS:
        decoded = read_file(file, cv2.IMREAD_UNCHANGED)
        if decoded is None:
            raise UnreadableError(f'{file} is not a readable image; replace or remove it.') from None
        pixels = decoded[..., 2::-1] if decoded.ndim == 3 else decoded
    if pixels.dtype.kind == 'f' and (fractions := pixels[pixels != np.round(pixels)]).size:
        raise UserError(f'{file} contains {fractions[0]}; save label maps as integers.')
    return pixels.astype(np.int64)


def _packed(pixels: np.ndarray) -> np.ndarray:
    """Return colours (H, W, 3) as one integer for each pixel, and values as they are."""
    return pixels @ (1 << 16, 1 << 8, 1) if pixels.ndim == 3 else pixels


def _checked_pixels(record: Record, name: str, coloured: bool = False) -> np.ndarray:
    """Return the pixels of a label map. Raises UserError if its size is not that of the image."""
    file = record.label_maps[name]
    pixels = read_pixels(file, coloured)
    if pixels.shape[:2] != (record.height, record.width):
        size = f'{pixels.shape[1]}x{pixels.shape[0]}'
        problem = f'{file} is {size}, but its image {record.file} is {record.width}x{record.height} pixels'
        raise UserError(f'{problem}; save both in one size.')
    return pixels


def _read_masks(source: Source, data: DataSet) -> str:
    """Set the classes of binary masks, one for each class, and return the kind.

    Pixels outside of all masks are the class ``background``. They are ignored if a table lists the classes without it.
    """
    names = sorted({name for record in data.records() for name in record.label_maps})
    overlaps: list[str] = []
    uncovered = False
    for record in data.records():
        if '' in record.label_maps:
            raise UserError(f'{record.label_maps[""]} names no class in its path, but other masks do; keep one kind.')
        total = np.zeros((record.height, record.width), np.int64)
        for name, file in record.label_maps.items():
            pixels = _packed(_checked_pixels(record, name))
            values = np.unique(pixels)
            if len(values) > 2 or (len(values) == 2 and values[0]):
                raise UserError(f'{file} has {len(values)} values, but is the mask of {name!r}; save 0 and 255.')
            total += pixels > 0
        uncovered |= bool((total == 0).any())
        overlaps += [record.name] * bool((total > 1).any())
    table, owner = table_of(source)
    if table is not None:
        data.classes = list(dict.fromkeys(name for name, _ in table if name not in IGNORED_NAMES))
        if unknown := [name for name in names if name not in data.classes]:
            raise UserError(f'{owner} does not list {some(unknown)}, which have masks; add them.')
    else:
        data.classes = ['background', *names] if uncovered and 'background' not in names else names
        data.notes.append(f'The classes are sorted by name: {", ".join(data.classes)}.')
    if overlaps:
        images = counted(len(overlaps), 'image')
        data.notes.append(f'Masks overlap in {images} ({some(overlaps)}); the later class is kept.')
    return 'one mask for each class'


def _read_values(source: Source, data: DataSet) -> str:
    """Set the classes and values of label maps, and return their kind."""
    table, owner = table_of(source)
    coloured = table is not None and isinstance(table[0][1], tuple)
    amounts: Counter[int | Colour] = Counter()
    examples: dict[int | Colour, Path] = {}
    for record in data.records():
        pixels = _checked_pixels(record, '', coloured)
        if not coloured and pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
            pixels = pixels[..., 0]  # indices that were saved with three equal channels
        values, numbers = np.unique(_packed(pixels), return_counts=True)
        for value, amount in zip(values.tolist(), numbers.tolist(), strict=True):
            key = (value >> 16, value >> 8 & 255, value & 255) if pixels.ndim == 3 else value
            amounts[key] += amount
            examples.setdefault(key, record.label_maps[''])
    colours = [str(key) for key, _ in amounts.most_common() if isinstance(key, tuple)]
    if colours and not coloured:
        problem = f'{source.path} has label maps with {len(colours)} colours ({some(colours)})'
        remedy = 'write labelmap.txt with lines "name:red,green,blue::", or pass --colors FILE'
        raise UserError(f'{problem}, but no table of their classes; {remedy}.')
    indices = sorted(key for key in amounts if isinstance(key, int))
    kind = 'colours' if coloured else '16-bit indices' if indices[-1] > 255 else 'indices'
    if table is None:
        table, kind = _table_of_values(indices, kind, data, source)
    _set_values(data, table, amounts, examples, owner)
    return kind


def _table_of_values(values: list[int], kind: str, data: DataSet, source: Source) -> tuple[Table, str]:
    """Return the classes of label maps without a table: two values, or indices up to the greatest one."""
    if len(values) == 2 and values[0] == 0 and values[1] > 1:
        data.notes.append(f'All label maps have the values 0, read as "background", and {values[1]}, read as "object".')
        return [('background', 0), ('object', values[1])], 'masks of two values'
    last = max((value for value in values if value not in (IGNORED, SIXTEEN)), default=0)
    if last >= IGNORED or last >= 4 * len(values) + 16:
        problem = f'{source.path} has label maps with {len(values)} values up to {last}, but no table of their classes'
        raise UserError(f'{problem}; write labels.txt with lines "value name", or pass --colors FILE.')
    remedy = f'write them into {source.path}/classes.txt, one on each line'
    data.notes.append(f'The classes of the label maps have no names; {remedy}.')
    return [(f'class {i}', i) for i in range(last + 1)], kind


def _set_values(data: DataSet, table: Table, amounts: Counter, examples: Mapping, owner: object) -> None:
    """Set classes and values of a table. Raises UserError for values that it does not contain."""
    data.classes = list(dict.fromkeys(name for name, _ in table if name not in IGNORED_NAMES))
    if len(data.classes) > IGNORED:
        raise UserError(f'{owner} lists {len(data.classes)} classes; label maps can have 255 at most.')
    data.values = {key: IGNORED if name in IGNORED_NAMES else data.classes.index(name) for name, key in table}
    if not isinstance(table[0][1], tuple):
        data.values = {IGNORED: IGNORED, SIXTEEN: IGNORED, **data.values}
    if unknown := [(key, number) for key, number in amounts.most_common() if key not in data.values]:
        key, number = unknown[0]
        kind = 'colour' if isinstance(key, tuple) else 'value'
        others = f'; {len(unknown) - 1} more are unknown' if len(unknown) > 1 else ''
        lossy = examples[key].suffix.lower() in ('.jpg', '.jpeg', '.webp')
        remedy = 'save label maps as PNG, because JPEG changes values' if lossy else f'add it to {owner}'
        amount = f'{counted(number, "pixel")} in all label maps{others}'
        problem = f'{examples[key]}: the {kind} {key} ({amount}) belongs to no class'
        raise UserError(f'{problem}; {remedy}, with the name "ignored" if it means that pixels are not labelled.')
    for key, number in amounts.items():
        data.pixels[data.values[key]] += number
    if absent := [name for i, name in enumerate(data.classes) if not data.pixels[i]]:
        data.notes.append(f'{counted(len(absent), "class")} without a pixel: {some(absent)}.')


def label_map(record: Record, data: DataSet) -> np.ndarray:
    """Return the class indices (H, W) of an image as uint8, and 255 for ignored pixels."""
    if data.values is None:  # one mask for each class
        uncovered = data.classes.index('background') if 'background' in data.classes else IGNORED
        result = np.full((record.height, record.width), uncovered, np.uint8)
        for i, name in enumerate(data.classes):
            if name in record.label_maps:
                result[_packed(read_pixels(record.label_maps[name])) > 0] = i
        return result
    coloured = isinstance(next(iter(data.values)), tuple)
    pixels = read_pixels(record.label_maps[''], coloured)
    pixels = pixels[..., 0] if pixels.ndim == 3 and not coloured else _packed(pixels)
    labels = {_packed(np.reshape(key, (1, 1, -1))).item() if coloured else key: n for key, n in data.values.items()}
    values, inverse = np.unique(pixels, return_inverse=True)
    return np.array([labels[value] for value in values.tolist()], np.uint8)[inverse].reshape(pixels.shape)


def write_labels(folder: Path, records: Sequence[Record], data: DataSet) -> Counter[int]:
    """Write the label map of each record as PNG with the name of the image; return the pixels of each class."""
    pixels: Counter[int] = Counter()
    for record in records:
        file = (folder / record.name).with_suffix('.png')
        if file.exists():
            raise UserError(f'Two images are called {Path(record.name).with_suffix("")}; rename one.')
        file.parent.mkdir(parents=True, exist_ok=True)
        labels = label_map(record, data)
        Image.fromarray(labels).save(file)
        pixels.update(dict(enumerate(np.bincount(labels.ravel(), minlength=IGNORED + 1).tolist())))
    return pixels


def _places(data: DataSet) -> dict[str, Place]:
    """Return the folders of each split, if mmsegmentation finds the label maps there by the names of the images."""
    places = {}
    for split, records in data.splits.items():
        maps = common_folder(record.label_maps[''] for record in records)
        suffixes = {(record.file.suffix, _ending(record, maps)) for record in records}
        (suffix, ending) = suffixes.pop()
        if not suffixes and ending and not has_other_images(records) and all(map(_has_one_channel, records)):
            places[split] = Place(maps, records[0].folder, (suffix, ending))
    return places if len(places) == len(data.splits) else {}


def has_other_images(records: Sequence[Record]) -> bool:
    """Whether the folder of a split has images of other splits; mmsegmentation would read them as well."""
    files = records[0].folder.rglob(f'*{records[0].file.suffix}')
    return {*files} != {record.file for record in records}


def _ending(record: Record, maps: Path) -> str:
    """Return what follows the name of the image in that of the label map, '' if the names differ."""
    stem = record.name.removesuffix(record.file.suffix)
    name = record.label_maps[''].relative_to(maps).as_posix()
    return name.removeprefix(stem) if name.startswith(stem) else ''


def _has_one_channel(record: Record) -> bool:
    """Whether a label map has 8 bits in one channel."""
    with Image.open(record.label_maps['']) as image:
        return image.mode in ('L', 'P')
