"""The format of a data set, detected from the contents of its files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError, some
from .coco import is_coco, read_coco
from .records import DataSet
from .sources import Source
from .yolo import read_yolo, yolo_files

SAMPLE = 30  # JSON and XML files whose contents are compared with the formats


class Format(NamedTuple):
    """A format that is read: what marks it, its files in a source, and its reader."""

    marks: str
    files: Callable[[Source], list[Path]]
    read: Callable[[Source, list[Path]], DataSet]


def json_files(condition: Callable[[Any], bool]) -> Callable[[Source], list[Path]]:
    """Return a function that returns the JSON files of a source whose content meets a condition."""

    def files(source: Source) -> list[Path]:
        instances = [file for file in source.with_suffix('.json') if file.name.startswith('instances_')]
        candidates = instances or source.with_suffix('.json')  # COCO's captions and keypoints take minutes to read
        return [file for file in candidates[:SAMPLE] if condition(source.json(file))]

    return files


FORMATS = {
    'coco': Format('a JSON file with images and categories', json_files(is_coco), read_coco),
    'yolo': Format('data.yaml with names and train, obj.data, or classes.txt', yolo_files, read_yolo),
}


def find(source: Source, name: str | None = None) -> tuple[str, list[Path]]:
    """Return the format of a source and its files. Raises UserError if no format or several are found."""
    if name is not None and name not in FORMATS:
        raise UserError(f'The format {name!r} is unknown; use {", ".join(FORMATS)}.')
    names = [name] if name else list(FORMATS)
    found = {key: files for key in names if (files := FORMATS[key].files(source))}
    if len(found) > 1:
        texts = [f'{key} ({some([source.relative(file) for file in files])})' for key, files in found.items()]
        raise UserError(
            f'{source.path} has annotations in several formats: {", ".join(texts)}; set one of the formats.'
        )
    if not found:
        looked = '; '.join(f'{key}: {FORMATS[key].marks}' for key in names)
        raise UserError(f'{source.path} has no annotations in a known format ({looked}); set the folder of the data.')
    return next(iter(found.items()))
