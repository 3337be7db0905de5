"""Labelled images in one file."""

from functools import lru_cache

import numpy as np


class Archive:
    """An .npz with ``data`` (the bytes of all JPEG files, uint8), ``offsets`` (N + 1) and ``labels`` (N)."""

    def __init__(self, file: str):
        with np.load(file) as content:
            self.data, self.offsets = content['data'], content['offsets']
            self.labels = content['labels'].tolist()

    def bytes_of(self, number: int) -> bytes:
        """The file of an image."""
        return self.data[self.offsets[number] : self.offsets[number + 1]].tobytes()

    @classmethod
    @lru_cache(maxsize=1)
    def opened(cls, file: str) -> 'Archive':
        """The same again, if it was the last one."""
        return cls(file)
