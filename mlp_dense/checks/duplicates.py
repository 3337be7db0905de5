"""Images that two splits of the data share: by path, by content, or nearly."""

import os
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations

import cv2
import numpy as np

from .findings import Finding

MAX_COMPARED = 20_000  # images whose contents are compared before a training
CHUNK = 1 << 14  # bytes in the middle of a file that are compared if the sizes are equal
HASH_SIDE = 16
MAX_DIFFERENCE = 8  # of the HASH_SIDE ** 2 bits, between near-duplicates


def shared_images(images: Mapping[str, Iterable[str]], everything: bool) -> Iterator[Finding]:
    """Yield the images of several splits of equal path or content, and if `everything` is checked, nearly equal ones.

    Contents are compared up to MAX_COMPARED images, unless `everything` is checked.
    """
    splits = {name: set(files) for name, files in images.items()}
    compares = everything or sum(map(len, splits.values())) <= MAX_COMPARED
    sizes = {name: _by_size(files) for name, files in splits.items()} if compares else {}
    hashes = {name: image_hashes(sorted(files)) for name, files in splits.items()} if everything else {}
    for first, second in combinations(splits, 2):
        reported: set[str] = set()
        for relation, files in (
            ('images are also in', splits[first] & splits[second]),
            ('images are copies of images in', _copies(sizes[first], sizes[second]) if compares else set()),
            ('images are nearly equal to images in', _near(hashes[first], hashes[second]) if everything else set()),
        ):
            if shared := sorted(files - reported):
                problem = f'{relation} the {_NAMES.get(first, first)} data: the metrics will be too good'
                cure = 'remove them from one of the two, and keep similar images in one split'
                yield Finding('warning', second, problem, len(shared), tuple(shared[:3]), cure)
            reported |= files


_NAMES = dict(train='training')


def _by_size(files: Iterable[str]) -> dict[int, list[str]]:
    sizes: dict[int, list[str]] = defaultdict(list)
    for file in files:
        try:
            sizes[os.stat(file).st_size].append(file)
        except OSError:
            continue
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


def image_hash(image: np.ndarray) -> np.ndarray:
    """Return the difference hash of an image in grey (H, W): bool (256,), whether brightness rises to the right.

    Similar images have similar hashes, also after a change of size, brightness or compression.
    """
    small = cv2.resize(image, (HASH_SIDE + 1, HASH_SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
    return (small[:, 1:] > small[:, :-1]).ravel()


def image_hashes(files: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return the readable files and their hashes (N, 256). Images of nearly one colour have no hash."""
    kept, hashes = [], []
    for file in files:
        image = cv2.imread(file, cv2.IMREAD_REDUCED_GRAYSCALE_4)
        if image is not None and image.std() > 2:
            kept.append(file)
            hashes.append(image_hash(image))
    return kept, np.array(hashes, dtype=bool).reshape(len(kept), HASH_SIDE**2)


def _near(first: tuple[list[str], np.ndarray], second: tuple[list[str], np.ndarray]) -> set[str]:
    """Return the files of the second set whose hash nearly equals one of the first."""
    (_, known), (files, hashes) = first, second
    if not len(known):
        return set()
    signs = np.where(known, np.float32(1), np.float32(-1)).T
    near: set[str] = set()
    for start in range(0, len(files), 1024):
        agreement = np.where(hashes[start : start + 1024], np.float32(1), np.float32(-1)) @ signs
        closest = agreement.max(1) >= HASH_SIDE**2 - 2 * MAX_DIFFERENCE
        near |= {files[start + i] for i in np.flatnonzero(closest)}
    return near
