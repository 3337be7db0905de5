"""Reading in any format, and writing in COCO's, YOLO's, VOC's or as label maps, without moving an image."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError
from .coco import write_coco
from .detecting import FORMATS, find
from .records import DataSet, Losses, Place, Record, counts
from .sources import Source, check_sizes, common_folder
from .yolo import write_yolo

WRITERS = ('coco', 'yolo')
"""Formats of :func:`write`."""


class Written(NamedTuple):
    """The files of each split that a config can name, and the lines that compare the written data with the source."""

    places: dict[str, Place]
    lines: list[str]


def detect(path: Path, format: str | None = None) -> str:
    """Return the name of the format of a folder or annotation file. Raises UserError if it is unknown or ambiguous."""
    return find(Source(Path(path)), format)[0]


def read(path: Path, format: str | None = None, images: Path | None = None) -> DataSet:
    """Read the annotations of a folder or of an annotation file; `images` is another folder of the images.

    Images and objects have the same order in all formats: by file name, and as in the files.
    """
    source = Source(Path(path), images)
    name, files = find(source, format)
    data = FORMATS[name].read(source, files)
    if not data.splits:
        raise UserError(f'{path} has no image; set the folder of the data.')
    check_sizes(data)
    return data


def places_of(data: DataSet, folder: Path) -> Written:
    """Return files that a config can name: those of the source, or annotations that are written into a new `folder`.

    Images stay where they are. mmdet and mmsegmentation cannot read a source in another format, in a dialect that the
    notes of `data` describe, or after :func:`split`.
    """
    if data.places and all(place.annotations for place in data.places.values()):
        return Written(data.places, [])
    return write(data, folder, 'coco', images='keep')


def write(data: DataSet, out: Path, format: str, images: str = 'link') -> Written:
    """Write a data set into a new or empty folder, and compare it with the source.

    Images are linked (hard links), or copied to another file system. They are never moved or overwritten. With
    ``images='keep'`` only annotations are written, which refer to the images of the source.
    """
    out, losses = Path(out), Losses()
    if format not in WRITERS or images not in ('link', 'keep'):
        raise UserError(f'Data cannot be written as {format!r} with images={images!r}; use {", ".join(WRITERS)}, link.')
    keep = images == 'keep'
    if keep and format != 'coco':
        raise UserError(f'{format} needs the images in its folder; use images="link".')
    if keep and any(record.embedded for record in data.records()):
        raise UserError('Images inside of JSON files cannot stay there; use images="link".')
    places = {}
    with _new_folder(out, data) as folder:
        for split, records in data.splits.items():
            image_folder = common_folder(record.file for record in records) if keep else out / split
            if format == 'coco':
                name = Path('annotations', f'instances_{split}.json')
                write_coco(folder / name, records, data.classes, image_folder)
                places[split] = Place(out / name, image_folder)
            for record in () if keep else records:
                parent = folder / 'images' / split if format == 'yolo' else folder / split
                _link(record, parent / record.name)
        if format == 'yolo':
            write_yolo(folder, data.splits, data.classes, losses)
    return Written(places, _compared(data, read(out, format), losses))


@contextmanager
def _new_folder(out: Path, data: DataSet) -> Iterator[Path]:
    """Yield a folder that becomes `out` at the end; after an error nothing remains."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        problem = 'not empty' if out.is_dir() else 'a file'
        raise UserError(f'{out} is {problem}; choose another folder.')
    if out.resolve().is_relative_to(data.root.resolve()):
        raise UserError(f'{out} lies in the folder of the data; choose a folder outside of {data.root}.')
    unfinished = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f'.{out.name}.', dir=out.parent))
        unfinished.chmod(0o777 & ~_umask())
        yield unfinished
        if out.exists():
            out.rmdir()
        unfinished.replace(out)
    except OSError as error:
        raise UserError(f'{out} cannot be written ({error}); choose another folder.') from error
    finally:
        if unfinished:
            shutil.rmtree(unfinished, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _link(record: Record, target: Path) -> None:
    """Link or copy an image; an existing target is an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        raise UserError(f'Two images are called {record.name}; rename one.')
    try:
        os.link(record.file.resolve(), target)
    except OSError:  # another file system, or one without links
        shutil.copy2(record.file, target)


def _compared(before: DataSet, after: DataSet, losses: Losses) -> list[str]:
    """Return the counts of the source and of the written data, and a sentence for each loss."""
    first, second = counts(before), counts(after)
    lines = [
        f'{name}: {first.get(name, 0)} -> {second.get(name, 0)}'
        for name in {**first, **second}
        if not name.startswith('class ') or first.get(name) != second.get(name)
    ]
    lines.append(f'classes: {len(before.classes)} -> {len(after.classes)}')
    dropped = sum(map(len, losses.dropped.values()))
    if first['objects'] - dropped != second['objects'] or before.classes != after.classes:
        raise RuntimeError(f'The written data differ from the source without a reason: {"; ".join(lines)}')
    return lines + losses.lines()
