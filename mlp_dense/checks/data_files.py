"""Findings about files: missing images and label maps, other suffixes, folders of the system."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..datasets import SUFFIXES, SYSTEM_FOLDERS
from .coco_data import Contents
from .findings import Finding, listing


def missing_files(files: Iterable[str]) -> list[str]:
    """Return the files that do not exist, from one listing of each folder. URLs are not checked."""
    names: dict[str, set[str] | None] = {}
    missing = []
    for file in files:
        folder, _, name = file.rpartition('/')
        if folder not in names:
            try:
                names[folder] = None if ':/' in folder else {entry.name for entry in os.scandir(folder or '.')}
            except NotADirectoryError:  # an archive
                names[folder] = None
            except OSError:
                names[folder] = set()
        if names[folder] is not None and name not in names[folder]:
            missing.append(file)
    return missing


def file_findings(name: str, dataset: Any, contents: Contents, max_unreadable: float) -> Iterator[Finding]:
    """Yield missing images and label maps, and images that a data set does not use because of their suffix."""
    for noun, files in (('images', contents.images), ('label maps', contents.label_maps)):
        if missing := missing_files(files):
            is_error = name != 'train' or len(missing) > max_unreadable * len(files)
            remedy = _similar(missing[0]) or 'add the files, or correct the names and the folder'
            yield listing('error' if is_error else 'warning', name, f'{noun} are missing', missing, remedy)
    if repeated := [file for file, count in Counter(contents.images).items() if count > 1]:
        problem, remedy = 'images are listed several times', 'list each image once, with all of its annotations'
        yield listing('warning', name, problem, repeated, remedy)
    yield from _other_suffixes(name, dataset)


def _similar(file: str) -> str:
    """Return a remedy if a folder has the file with another suffix or in other letter case."""
    path = Path(file)
    if '\\' in file:
        return 'write file_name with / instead of \\'
    if not path.parent.is_dir():
        return f'create {path.parent}, or correct data_root and data_prefix'
    others = [other.name for other in path.parent.iterdir() if other.stem.lower() == path.stem.lower()]
    return f'rename them: the folder has {others[0]}' if others else ''


def _other_suffixes(name: str, dataset: Any) -> Iterator[Finding]:
    """Yield the images that a data set of mmsegmentation does not use, because their suffix is not ``img_suffix``."""
    own, prefixes = getattr(dataset, 'img_suffix', None), getattr(dataset, 'data_prefix', None) or {}
    folder, labels = (Path(prefixes.get(key) or '') for key in ('img_path', 'seg_map_path'))
    if not own or not folder.is_dir() or Path(dataset.ann_file or '').is_file():
        return
    ignored = {_suffix(own)} | ({_suffix(dataset.seg_map_suffix)} if folder in (labels, *labels.parents) else set())
    for suffix, files in images_by_suffix(folder).items():
        if suffix not in ignored:
            problem = f'images with the suffix {suffix} are not used'
            yield listing('warning', name, problem, files, f'rename them, or set img_suffix={suffix!r}')


def _suffix(ending: str) -> str:
    """Return the suffix of an ending such as ``_image.png``."""
    return Path(f'x{ending}').suffix


def visible(folder: Path, pattern: str = '*') -> Iterator[Path]:
    """Yield the files and folders below a folder, sorted by path, without hidden ones and system folders."""
    for path in sorted(folder.rglob(pattern)):
        if not any(part[0] == '.' or part in SYSTEM_FOLDERS for part in path.relative_to(folder).parts):
            yield path


def images_by_suffix(folder: Path) -> dict[str, list[str]]:
    """Return the visible images below a folder by their suffix."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in visible(folder):
        if path.suffix.lower() in SUFFIXES:
            found[path.suffix].append(str(path))
    return found


def system_folders(root: Path) -> list[str]:
    """Return the folders in and below a folder that archives and file servers add."""
    return sorted(str(path) for path in root.rglob('*') if path.name in SYSTEM_FOLDERS and path.is_dir())
