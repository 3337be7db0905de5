"""Reader of all formats, and writer of COCO, YOLO, Pascal VOC and label maps. Images are never moved."""

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from ..errors import UserError, counted, some
from .coco import write_coco
from .detecting import FORMATS, find
from .labelme import image_bytes
from .records import DataSet, Losses, Place, Record, counts
from .semantic import IGNORED, has_other_images, write_labels
from .sources import Source, check_sizes, split_of
from .voc import write_voc
from .yolo import write_yolo

WRITERS = ('coco', 'yolo', 'voc', 'labels')
"""Formats of :func:`write`."""


class Written(NamedTuple):
    """The files of each split that a config can name, and the lines that compare the written data with the source."""

    places: dict[str, Place]
    lines: list[str]


def detect(path: Path, format: str | None = None) -> str:
    """Return the name of the format of a folder or annotation file. Raises UserError if it is unknown or ambiguous."""
    return find(Source(Path(path)), format)[0]


def read(
    path: Path,
    format: str | None = None,
    images: Path | None = None,
    colors: Mapping[str, Any] | Path | None = None,
) -> DataSet:
    """Read the annotations of a folder or of an annotation file.

    Images are sorted by name, and the objects of an image have the order of the file, in all formats.

    Args:
        path: Folder of the data, or an annotation file.
        format: Name in ``FORMATS``, if several are found.
        images: Folder of the images, if they are elsewhere.
        colors: For label maps: the value or the colour (red, green, blue) of each class, or a file with them.
    """
    source = Source(Path(path), images and Path(images), Path(colors) if isinstance(colors, str) else colors)
    name, files = find(source, format)
    data = FORMATS[name].read(source, files)
    if not data.splits:
        raise UserError(f'{path} has no image; choose the folder of the data, or pass --images DIR.')
    if name != 'labels':
        check_sizes(data)
    used = {record.file for record in data.records()}
    unused = [file for file in source.image_files if file not in used]
    if unused and name in ('coco', 'voc', 'labelme', 'cvat') and not source.file:
        files_text = some([source.relative(file) for file in unused])
        data.notes.append(f'Not read: {counted(len(unused), "image")} without annotations ({files_text}).')
    return data


def places_of(data: DataSet, folder: Path) -> Written:
    """Return files that a config can name: those of the source, or annotations that are written into a new `folder`.

    Images stay where they are, if possible. New annotations are written if mmdet or mmsegmentation cannot read those of
    the source: another format, a dialect named in `data.notes`, or a new split.
    """
    if data.places and all(place.annotations for place in data.places.values()):
        return Written(data.places, [])
    format = 'labels' if data.format == 'labels' else 'coco'
    return write(data, folder, format, images='link' if _obstacle(data, format) else 'keep')


def write(data: DataSet, out: Path, format: str, images: str = 'link') -> Written:
    """Write a data set into a new or empty folder, and compare it with the source.

    Images are linked (hard links), or copied to another file system. They are never moved or overwritten. With
    ``images='keep'`` only annotations are written, which refer to the images of the source.
    """
    out = Path(out)
    _check_writable(data, format, images)
    writing = _Writing(data, out, images == 'keep')
    with _new_folder(out, data) as folder:
        getattr(writing, format)(folder)
    return writing.result(format)


class _Writing:
    """Files that are written into a folder, which then becomes `out`; images are linked unless they are kept."""

    def __init__(self, data: DataSet, out: Path, keep: bool):
        self.losses, self.pixels, self.places = Losses(), Counter[int](), dict[str, Place]()
        self.data, self.out, self.keep = data if keep else _renamed(data, self.losses), out, keep

    def coco(self, folder: Path) -> None:
        for name, records in self.data.splits.items():
            images = records[0].folder if self.keep else self.out / name
            file = Path('annotations', f'instances_{name}.json')
            write_coco(folder / file, records, self.data.classes, images if self.keep else None)
            self.places[name] = Place(self.out / file, images)
            self.link(records, folder / name)

    def yolo(self, folder: Path) -> None:
        write_yolo(folder, self.data.splits, self.data.classes, self.losses)
        for name, records in self.data.splits.items():
            self.link(records, folder / 'images' / name)

    def voc(self, folder: Path) -> None:
        parents = write_voc(folder, self.data.splits, self.data.classes, self.losses)
        for name, records in self.data.splits.items():
            self.link(records, folder / 'JPEGImages' / parents[name])

    def labels(self, folder: Path) -> None:
        lines = [f'{i} {name}\n' for i, name in enumerate(self.data.classes)]
        (folder / 'classes.txt').write_text(''.join(lines), encoding='utf-8')
        for name, records in self.data.splits.items():
            self.pixels += write_labels(folder / 'labels' / name, records, self.data)
            suffix = Counter(record.file.suffix for record in records).most_common(1)[0][0]
            images = records[0].folder if self.keep else self.out / name
            self.places[name] = Place(self.out / 'labels' / name, images, (suffix, '.png'))
            if others := [record.name for record in records if record.file.suffix != suffix]:
                reason = f'mmsegmentation reads one suffix, so the names of all end in {suffix}'
                self.losses.renamed[reason] += others
            self.link(records, folder / name, suffix)

    def link(self, records: Sequence[Record], folder: Path, suffix: str | None = None) -> None:
        """Link or copy images; an existing target is an error."""
        for record in () if self.keep else records:
            target = (folder / record.name).with_suffix(suffix or Path(record.name).suffix)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                raise UserError(f'Two images are called {record.name}; rename one.')
            if record.embedded:
                target.write_bytes(image_bytes(record.file))
                continue
            try:
                os.link(record.file.resolve(), target)
            except OSError:  # another file system, or one without links
                shutil.copy2(record.file, target)

    def result(self, format: str) -> Written:
        if format == 'labels':
            self.data.pixels = self.pixels  # reading does not count those of binary masks
            return Written(self.places, [*_pixel_lines(self.data, self.pixels), *self.losses.lines()])
        return Written(self.places, _compared(self.data, read(self.out, format), self.losses))


def _renamed(data: DataSet, losses: Losses) -> DataSet:
    """Return data whose image names omit folders such as ``train/``, which would contradict the new splits."""
    names = {record.name: [f for f in record.name.split('/')[:-1] if not split_of(f)] for record in data.records()}
    shared = len(os.path.commonprefix([*names.values()]))  # folders of all images
    short = {name: '/'.join([*folders[shared:], Path(name).name]) for name, folders in names.items()}
    used = Counter(_key(short[record.name]) for record in data.records())
    for name in names:
        if name != short[name] and used[_key(short[name])] > 1:
            short[name] = name.replace('/', '_')
            losses.renamed['images of one name get the names of their folders'].append(short[name])
    splits = {
        split: sorted((replace(record, name=short[record.name]) for record in records), key=lambda each: each.name)
        for split, records in data.splits.items()
    }
    return replace(data, splits=splits)


def _key(name: str) -> str:
    """Return the name without suffix and case, which label files share."""
    return Path(name).with_suffix('').as_posix().lower()


def _check_writable(data: DataSet, format: str, images: str) -> None:
    if format not in WRITERS:
        raise UserError(f'The format {format!r} is unknown; use {", ".join(WRITERS)}.')
    if images not in ('link', 'keep'):
        raise UserError(f"images is {images!r}; use 'link' or 'keep'.")
    if (format == 'labels') != (data.format == 'labels'):
        found, remedy = ('label maps', 'labels') if data.format == 'labels' else ('objects', 'coco, yolo or voc')
        raise UserError(f'{data.root} contains {found}, which the format {format} cannot store; choose {remedy}.')
    if images == 'keep' and (problem := _obstacle(data, format)):
        raise UserError(f'{problem}; use images="link".')


def _obstacle(data: DataSet, format: str) -> str:
    """Return why annotations of a format cannot refer to the images of the source, an empty text if they can."""
    suffixes = [{record.file.suffix for record in records} for records in data.splits.values()]
    if format == 'labels' and max(map(len, suffixes)) > 1:
        return f'The images have the suffixes {max(suffixes, key=len)}, not one'
    if format == 'labels' and any(map(has_other_images, data.splits.values())):
        return f'The splits of {data.root} share a folder of images'
    if format in ('yolo', 'voc') or any(record.embedded for record in data.records()):
        return f'{format} needs the images of {data.root} in its folder'
    return ''


def _pixel_lines(data: DataSet, pixels: Counter[int]) -> list[str]:
    """Return lines with the pixels per class in the source and in the result.

    Sources with one mask per class have no source counts.
    """
    before = data.pixels or pixels
    if +before != +pixels:
        raise RuntimeError(f'The written label maps have {pixels} instead of {before} pixels of each class.')
    names = [*enumerate(data.classes), (IGNORED, 'ignored')]
    lines = [f'images of {split}: {len(records)} -> {len(records)}' for split, records in data.splits.items()]
    return lines + [f'pixels of {name}: {before[i]} -> {pixels[i]}' for i, name in names if pixels[i]]


@contextmanager
def _new_folder(out: Path, data: DataSet) -> Iterator[Path]:
    """Yield a folder that becomes `out` at the end; after an error nothing remains."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        problem = 'not empty' if out.is_dir() else 'a file'
        raise UserError(f'{out} is {problem}; choose another folder.')
    if out.resolve().is_relative_to(data.root.resolve()):
        raise UserError(f'{out} lies in the folder of the data; choose a folder outside of {data.root}.')
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f'.{out.name}.', dir=out.parent, ignore_cleanup_errors=True) as temporary:
            unfinished = Path(temporary, 'data')  # a folder in it has the permissions of an ordinary one
            unfinished.mkdir()
            yield unfinished
            if out.exists():
                out.rmdir()
            unfinished.replace(out)
    except OSError as error:
        raise UserError(f'{out} cannot be written ({error}); choose another folder.') from error


def _compared(before: DataSet, after: DataSet, losses: Losses) -> list[str]:
    """Return the counts of the source and of the written data, and a sentence for each loss."""
    first, second = counts(before), counts(after)
    lines = [
        f'{name}: {first.get(name, 0)} -> {second.get(name, 0)}'
        for name in {**first, **second}
        if first.get(name) != second.get(name) or (second.get(name) and not name.startswith('class '))
    ]
    lines.append(f'classes: {len(before.classes)} -> {len(after.classes)}')
    dropped = sum(map(len, losses.dropped.values()))
    if first['objects'] - dropped != second['objects'] or before.classes != after.classes:
        raise RuntimeError(f'The written data differ from the source without a reason: {"; ".join(lines)}')
    return lines + losses.lines()
