"""Near-duplicates of images: groups of similar thumbnails."""

from collections import defaultdict
from collections.abc import Sequence
from io import BytesIO

import cv2
import numpy as np
from PIL import Image

from .image_files import PILLOW_ERRORS, decode

BITS = 3  # maximum number of differing bits between the 64-bit difference hashes of near-duplicates
GREY = 8.0  # maximum mean difference between their thumbnails, in grey levels from 0 to 255
FLAT = 2.0  # standard deviation of grey levels below which thumbnails are near-duplicates only if they are equal


def thumbnail(content: bytes) -> np.ndarray | None:
    """Return grey levels (8, 9) of an encoded image, None if it is unreadable.

    The greatest value of an image with more than 8 bits becomes 255. Of several bands the first three are used.
    """
    try:
        with Image.open(BytesIO(content)) as image:
            image.draft('L', (72, 64))  # decodes JPEG at a reduced size
            is_deep = image.mode[0] in 'IF'
            pixels = None if is_deep else np.asarray(image.convert('L'))
    except PILLOW_ERRORS:
        pixels = None
    if pixels is None:
        pixels = decode(content, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
        if pixels is None:
            return None
        if pixels.dtype != np.uint8:
            pixels = pixels * np.float32(255 / max(float(pixels.max()), 1e-12))
    return cv2.resize(pixels, (9, 8), interpolation=cv2.INTER_AREA).astype(np.float32)


def near_duplicates(thumbnails: Sequence[np.ndarray]) -> list[list[int]]:
    """Return groups of indices of images that are equal or nearly so; a chain of similar images is one group.

    The difference hash of an image has 64 bits: whether brightness rises to the right.
    """
    hashes = [int(''.join('01'[bit] for bit in (t[:, 1:] > t[:, :-1]).ravel().tolist()), 2) for t in thumbnails]
    group = list(range(len(thumbnails)))

    def root(i: int) -> int:
        while group[i] != i:
            group[i] = group[group[i]]
            i = group[i]
        return i

    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    first: dict[bytes, int] = {}  # thousands of equal images are not compared with each other
    for i, value in enumerate(hashes):
        group[i] = first.setdefault(thumbnails[i].tobytes(), i)
        if group[i] != i or thumbnails[i].std() < FLAT:
            continue
        for quarter in range(BITS + 1):  # of four quarters of equal length, one is equal if three bits differ
            bucket = buckets[quarter, value >> 16 * quarter & 0xFFFF]
            for j in bucket:
                near = root(i) != root(j) and (value ^ hashes[j]).bit_count() <= BITS
                if near and np.abs(thumbnails[i] - thumbnails[j]).mean() <= GREY:
                    group[root(i)] = root(j)
            bucket.append(i)
    members: dict[int, list[int]] = defaultdict(list)
    for i in range(len(thumbnails)):
        members[root(i)].append(i)
    return sorted(members.values())
