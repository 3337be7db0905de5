"""Labelled images in one file."""

from functools import lru_cache

import numpy as np


class Archive:
    """An .npz file with ``data`` (the bytes of all JPEG files, uint8), ``offsets`` (N + 1) and ``labels`` (N)."""

    def __init__(self, file: str):
        with np.load(file) as content:
            self.data, self.offsets = content['data'], content['offsets']
            self.labels = content['labels'].tolist()

    def bytes_of(self, index: int) -> bytes:
        """Return the bytes of an image file."""
        return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes()

    @classmethod
    @lru_cache(maxsize=1)
    def opened(cls, file: str) -> 'Archive':
        """Open an archive, or return the one that was opened last if it is the same file."""
        return cls(file)
