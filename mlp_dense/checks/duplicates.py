"""Images that two splits of the data share: by path, by content, or nearly."""

import os
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import numpy as np

from ..datasets.near_duplicates import near_duplicates, thumbnail
from .findings import Finding, listing

MAX_COMPARED = 20_000  # images whose contents are compared before training
CHUNK = 1 << 14  # bytes in the middle of a file that are compared if the sizes are equal


def shared_images(images: Mapping[str, Iterable[str]], everything: bool) -> Iterator[Finding]:
    """Yield the images of several splits of equal path or content, and if `everything` is checked, nearly equal ones.

    Contents are compared up to MAX_COMPARED images, unless `everything` is checked.
    """
    splits = {name: set(files) for name, files in images.items()}
    compares = everything or sum(map(len, splits.values())) <= MAX_COMPARED
    sizes = {name: _by_size(files) for name, files in splits.items()} if compares else {}
    thumbnails = {name: _thumbnails(sorted(files)) for name, files in splits.items()} if everything else {}
    for first, second in combinations(splits, 2):
        reported: set[str] = set()
        copies = _copies(sizes[first], sizes[second]) if compares else set()
        near = _near(thumbnails[first], thumbnails[second]) if everything else set()
        for relation, files in (
            ('images are also in', splits[first] & splits[second]),
            ('images are copies of images in', copies),
            ('images are nearly equal to images in', near),
        ):
            if shared := sorted(files - reported):
                name = 'training' if first == 'train' else first
                problem = f'{relation} the {name} data: the metrics will be too good'
                remedy = 'remove them from one of the two, and keep similar images in one split'
                yield listing('warning', second, problem, shared, remedy)
            reported |= files


def _by_size(files: Iterable[str]) -> dict[int, list[str]]:
    sizes: dict[int, list[str]] = defaultdict(list)
    for file in files:
        with suppress(OSError):
            sizes[os.stat(file).st_size].append(file)
    return sizes


def _copies(first: Mapping[int, Sequence[str]], second: Mapping[int, Sequence[str]]) -> set[str]:
    """Return the files of the second set whose size and content occur in the first."""
    copies: set[str] = set()
    for size in first.keys() & second.keys():
        known = {_checksum(file, size) for file in first[size]}
        copies |= {file for file in second[size] if _checksum(file, size) in known}
    return copies


def _checksum(file: str, size: int) -> int:
    """Return a checksum of the middle of a file, where images of equal headers differ."""
    with open(file, 'rb') as opened:
        opened.seek(max(0, (size - CHUNK) // 2))
        return zlib.crc32(opened.read(CHUNK))


def _thumbnails(files: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the thumbnails of the readable files."""
    found = ((file, thumbnail(Path(file).read_bytes())) for file in files if Path(file).is_file())
    return {file: image for file, image in found if image is not None}


def _near(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> set[str]:
    """Return the files of the second set that are near-duplicates of files of the first."""
    files = [*first, *second]
    groups = near_duplicates([*first.values(), *second.values()])
    return {files[i] for group in groups if group[0] < len(first) for i in group if i >= len(first)}
