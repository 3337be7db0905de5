"""Files of a data set: its folders, its images, and JSON, XML and text in them."""

import json
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

import cv2
from PIL import Image

from ..datasets import SUFFIXES
from ..datasets.image_files import PILLOW_ERRORS, decode, read_file
from ..errors import UnreadableError, UserError, counted, some
from .records import DataSet, Record

SPLITS = {
    **dict.fromkeys(('train', 'training', 'train2014', 'train2017', 'trn'), 'train'),
    **dict.fromkeys(('val', 'valid', 'validation', 'val2014', 'val2017', 'validate', 'dev'), 'val'),
    **dict.fromkeys(('test', 'testing', 'test2014', 'test2017', 'tst'), 'test'),
}
"""Words in the names of files and folders that name a split."""
LABELS = r'(?:masks?|labels?|annotations?|annot|gt|segmentationclass(?:raw)?)'
IMAGES = r'(?:images?|imgs?|jpegimages)'
JOINED = re.compile(rf'(train|val|test)({LABELS}|{IMAGES})', re.IGNORECASE)  # as trainannot
ORDER = ('train', 'val', 'test')
ROTATED = (5, 6, 7, 8)  # orientations of EXIF that exchange width and height


class Source:
    """The files below a folder. Hidden files, and those of macOS in ``__MACOSX``, are ignored.

    `file` is the annotation file, if the user chose one. Images may lie in another folder, `images`. `colors` are the
    values or colours of the classes in label maps, or a file with them.
    """

    def __init__(self, path: Path, images: Path | None = None, colors: Mapping[str, Any] | Path | None = None):
        if not path.exists():
            raise UserError(f'{path} does not exist; set the folder of the data or an annotation file.')
        if path.suffix.lower() in ('.zip', '.tar', '.gz', '.tgz', '.7z', '.rar'):
            raise UserError(f'{path} is an archive; unpack it and set its folder.')
        self.path, self.file = path, path if path.is_file() else None
        folder = path.parent if self.file else path
        self.root = folder.parent if self.file and folder.name.lower() == 'annotations' else folder
        if images is not None and not images.is_dir():
            raise UserError(f'{images} is not a folder; set the folder of the images.')
        if isinstance(colors, Path) and not colors.is_file():
            raise UserError(f'{colors} is not a file; pass --colors with a file of the classes and their colours.')
        self.image_root, self.colors = images or self.root, colors
        self._json: dict[Path, Any] = {}

    @cached_property
    def files(self) -> list[Path]:
        """All files, sorted by path."""
        return list(_walk(self.root))

    @cached_property
    def image_files(self) -> list[Path]:
        """All images, sorted by path."""
        files = self.files if self.image_root == self.root else _walk(self.image_root)
        return sorted(file for file in files if file.suffix.lower() in SUFFIXES)

    @cached_property
    def images(self) -> dict[str, list[Path]]:
        """Images by name in lower case, and by name without suffix."""
        index: dict[str, list[Path]] = {}
        for file in self.image_files:
            for key in {file.name.lower(), file.stem.lower()}:
                index.setdefault(key, []).append(file)
        return index

    def with_suffix(self, *suffixes: str) -> list[Path]:
        """Return the chosen file, or all files with one of the suffixes, in lower case."""
        files = [self.file] if self.file else self.files
        return [file for file in files if file.suffix.lower() in suffixes]

    def json(self, file: Path) -> Any:
        """Return the content of a JSON file, which is read once."""
        if file not in self._json:
            self._json[file] = read_json(file)
        return self._json[file]

    def find(self, name: str, folders: Iterable[Path], stem: bool = False) -> Path | None:
        """Return an image by its name: in one of the folders, else anywhere if only one image has the name.

        With `stem` the suffix of the image may differ.
        """
        name, folders = name.replace('\\', '/'), [*folders]
        for folder in folders:
            if (file := folder / name).is_file() and file.suffix.lower() in SUFFIXES:
                return Path(os.path.normpath(file))  # without "..", which a writer would follow out of its folder
        tail = Path(name)
        found = self.images.get(tail.name.lower(), []) or (self.images.get(tail.stem.lower(), []) if stem else [])
        for depth in range(1, len(tail.parts)):  # of several, the one in the folder of the same name
            ends = tail.parts[-1 - depth : -1]
            found = [file for file in found if file.parts[-1 - depth : -1] == ends] or found
        found = [file for file in found if file.parent in folders] or found
        if len(found) > 1:
            paths = some([str(self.relative(file)) for file in found])
            raise UserError(f'{counted(len(found), "image")} match {name!r} ({paths}); keep one, or name its folder.')
        return found[0] if found else None

    def relative(self, file: Path) -> str:
        """Return a path below the root as text, another path as it is."""
        for root in (self.root, self.image_root):
            if file != root and file.is_relative_to(root):
                return file.relative_to(root).as_posix()
        return str(file)

    def split_of(self, file: Path) -> str:
        """Return the split that the innermost of the folders of a file names, by default ``train``."""
        return split_of(*Path(self.relative(file)).parts[-2::-1]) or 'train'


def _walk(root: Path) -> Iterator[Path]:
    seen = set()  # a link may lead to a folder above it
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith('.') and name != '__MACOSX')
        if (real := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith('.'))


def split_of(*names: str) -> str | None:
    """Return the split that a word of the names stands for, None without such a word."""
    for name in names:
        text = ''.join(letter if letter.isalnum() else ' ' for letter in JOINED.sub(r'\1 \2', name.lower()))
        for word in text.split():
            if word in SPLITS:
                return SPLITS[word]
    return None


def named_splits(splits: dict[str, list[Record]]) -> dict[str, list[Record]]:
    """Return splits with images in the order train, val, test, then others; a single other one becomes ``train``.

    The names of the records, which have no folder, become paths from the common folder of the split.
    """
    splits = {name: records for name, records in splits.items() if records}
    for records in splits.values():
        common = common_folder(record.file for record in records)
        for record in records:
            record.name = (record.file.parent.relative_to(common) / record.name).as_posix()
        records.sort(key=lambda record: record.name)
    if len(splits) == 1:
        splits = {only_split(splits): records for records in splits.values()}
    return {name: splits[name] for name in dict.fromkeys((*ORDER, *sorted(splits))) if name in splits}


def only_split(names: Iterable[str]) -> str:
    """Return the name of the only split: ``train`` if it is not a usual name."""
    (name,) = names
    return name if name in ORDER else 'train'


def common_folder(files: Iterable[Path]) -> Path:
    """Return the deepest folder that contains all files."""
    return Path(os.path.commonpath([file.parent for file in files]))


def read_text(file: Path) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a byte-order mark."""
    content = file.read_bytes()
    encoding = 'utf-16' if content[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig'
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f'{file} is not a text in UTF-8 ({error.reason} at byte {error.start}); save it so.') from error


def lines_of(file: Path) -> list[tuple[int, str]]:
    """Return the lines of a text that are not empty, with their numbers from 1."""
    lines = enumerate(read_text(file).splitlines(), start=1)
    return [(number, text) for number, line in lines if (text := line.strip())]


def read_json(file: Path) -> Any:
    """Return the content of a JSON file; a byte-order mark is allowed, NaN and infinity are not."""

    def refuse(constant: str) -> NoReturn:
        raise UserError(f'{file} contains {constant}; use a finite number.')

    try:
        return json.loads(read_text(file), parse_constant=refuse)
    except RecursionError as error:
        raise UserError(f'{file} is nested too deeply; set an annotation file.') from error
    except json.JSONDecodeError as error:
        problem = 'is empty' if not file.stat().st_size else f'is not JSON, line {error.lineno}: {error.msg}'
        raise UserError(f'{file} {problem}; replace it by a complete file.') from error


class _NoDoctype(ET.TreeBuilder):
    """A builder that refuses document types, because their entities may expand to gigabytes or name other files."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise UserError(f'it declares a document type ({name!r}); remove the line <!DOCTYPE ...>.')


def read_xml(file: Path) -> ET.Element:
    """Return the root of an XML file. Raises UserError for document types and entities."""
    try:
        return ET.parse(file, ET.XMLParser(target=_NoDoctype())).getroot()
    except UserError as error:
        raise UserError(f'{file} is not read: {error}') from None
    except (ET.ParseError, ValueError, LookupError) as error:
        raise UserError(f'{file} is not XML ({error}); replace it by a complete file.') from error


def image_size(file: Path, content: bytes | None = None) -> tuple[int, int]:
    """Return width and height of an image as training loads it, which is rotated by the EXIF orientation.

    The image is `content` if the file contains more than the image.
    """
    try:
        with Image.open(file if content is None else BytesIO(content)) as image:
            width, height = image.size
            exif = Image.Exif()
            exif.load(image.info.get('exif', b''))  # `getexif` would decode a complete PNG file
            if exif.get(0x0112) not in ROTATED:
                return width, height
    except PILLOW_ERRORS:
        pass
    # Decode the image: which formats OpenCV rotates depends on its version.
    pixels = read_file(file, cv2.IMREAD_COLOR) if content is None else decode(content, cv2.IMREAD_COLOR)
    if pixels is None:
        raise UnreadableError(f'{file} is missing or not a readable image; replace or remove it.')
    return pixels.shape[1], pixels.shape[0]


def check_sizes(data: DataSet) -> None:
    """Replace the sizes of the source by those of the images, and note differences."""
    rotated: list[str] = []
    other: list[str] = []
    records = [(split, record) for split, members in data.splits.items() for record in members if not record.embedded]
    for split, record in records:
        size = image_size(record.file)
        if size != (record.width, record.height) and min(record.width, record.height) > 0:
            (rotated if size == (record.height, record.width) else other).append(
                f'{record.name} is {size[0]}x{size[1]}, not {record.width}x{record.height}'
            )
            if split in data.places:
                data.places[split] = data.places[split]._replace(annotations=None)
        record.width, record.height = size
    if rotated:
        images = f'{counted(len(rotated), "image")} ({some(rotated)}): check that their boxes fit'
        problem = f'Width and height are exchanged in the annotations of {images}'
        data.notes.append(f'{problem}, because training applies the EXIF orientation.')
    if other:
        images = f'{counted(len(other), "image")} ({some(other)}): check that their boxes fit'
        data.notes.append(f'The annotations have another size than {images}.')


def number(value: Any, place: str) -> float:
    """Return a finite number, which may be given as text."""
    try:
        result = float(value)
    except (TypeError, ValueError):
        result = float('nan')
    if result - result != 0:
        raise UserError(f'{place} has {value!r} instead of a finite number; fix it.')
    return result


def missing_images(data_name: str, names: list[str], total: int, folders: Iterable[Path]) -> UserError:
    """Return the error for images that do not exist."""
    places = some([str(folder) for folder in dict.fromkeys(folders)])
    problem = f'{len(names)} of {counted(total, "image")} of {data_name} do not exist ({some(names)})'
    return UserError(f'{problem}; put them into {places}, set their folder, or remove their annotations.')
