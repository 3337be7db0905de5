"""Generated data sets, the image formats that are read, and archives of images."""

import numpy as np

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
"""Suffixes of image files in lower case."""

SYSTEM_FOLDERS = ('__MACOSX', '@eaDir', '$RECYCLE.BIN', 'System Volume Information')
"""Folders that archives of macOS, file servers and Windows add to data."""


class Archive:
    """An .npz file with ``data`` (the bytes of all JPEG files, uint8), ``offsets`` (N + 1) and ``labels`` (N)."""

    def __init__(self, file: str):
        with np.load(file) as content:
            self.data, self.offsets = content['data'], content['offsets']
            self.labels = content['labels'].tolist()

    def bytes_of(self, index: int) -> bytes:
        """Return the bytes of an image file."""
        return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes()
