"""Images of any number of bands and bits: TIFF (tifffile), NumPy and ordinary files, and their display in 8 bits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..errors import NotInstalledError, UnreadableError, UserError, explained_imports
from . import SUFFIXES

BAND_SUFFIXES = (*SUFFIXES, '.npy')
"""Suffixes of the files that :class:`LoadMultiBandImage` reads, in lower case."""
MOST_BANDS = 16
"""An unlabelled axis with more values is an axis of pixels."""
PERCENTILES = (2, 98)
"""Percentiles of each drawn band that become 0 and 255."""


class LoadMultiBandImage:
    """Loading transform that returns float32 (H, W, C) with the values and the order of the bands in the file.

    * TIFF: the axis that the file labels as samples or channels has the bands.
    * Pages of a TIFF and NumPy arrays are not labelled. A 2-D array is one band. In a 3-D array the bands are on the
      axis that `channels` names. Without `channels` they are on the first or the last axis, whichever has at most
      16 values. If both or neither have at most 16, the image is an error.
    * PNG, JPEG and others are read by OpenCV with all bits and their alpha band, in the order R, G, B, A.

    Args:
        channels: ``'first'`` for (C, H, W) or ``'last'`` for (H, W, C), if the axes are not labelled; None applies the
            rule above.
        show: bands, counted from 0, that are drawn as red, green and blue; by default the first three, or the first
            alone as grey. Each is stretched so that its 2nd and 98th percentile in the image become 0 and 255.
    """

    def __init__(self, channels: str | None = None, show: Sequence[int] | None = None):
        if channels not in (None, 'first', 'last'):
            raise UserError(f"LoadMultiBandImage: channels is {channels!r}; use 'first', 'last' or None.")
        if show is not None and (len(show) != 3 or min(show) < 0):
            raise UserError(f'LoadMultiBandImage: show is {show}; use three bands, counted from 0.')
        self.channels, self.show = channels, show

    def __call__(self, results: dict) -> dict:
        """Add ``img``, ``img_shape`` and ``ori_shape``."""
        results['img'] = image = self.read(results['img_path'])
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def read(self, path: str | Path) -> np.ndarray:
        """Return a file as float32 (H, W, C). Raises UnreadableError if it is damaged or has non-finite values."""
        path = Path(path)
        suffix = path.suffix.lower()
        read = _read_tiff if suffix in ('.tif', '.tiff') else _read_npy if suffix == '.npy' else _read_ordinary
        if not path.is_file():
            raise UnreadableError(f'{path} does not exist; restore it, or remove it from the data.')
        try:
            array, axes = read(path)
        except (UserError, MemoryError):
            raise
        except Exception as error:  # damaged bytes can raise any error
            if 'imagecodecs' in str(error):
                raise NotInstalledError(f'{path} is compressed: {error}; pip install imagecodecs.') from error
            reason = ' '.join(str(error).split())[:200] or type(error).__name__
            raise UnreadableError(f'{path} is not a readable image ({reason}); replace or remove it.') from error
        return self._as_bands(path, array, axes)

    def rgb(self, image: np.ndarray) -> np.ndarray:
        """Return bands (H, W, C) as uint8 (H, W, 3) in RGB. Raises UserError if the image lacks a band to show."""
        count = image.shape[2]
        bands = self.bands_shown(count)
        if max(bands) >= count:
            problem = f'LoadMultiBandImage: show is {bands}, but an image has {count} bands'
            raise UserError(f'{problem}; set show to bands from 0 to {count - 1}.')
        shown = image[..., bands].astype(np.float32)
        low, high = np.percentile(shown, PERCENTILES, axis=(0, 1), keepdims=True)
        return (255 * np.clip((shown - low) / np.maximum(high - low, 1e-12), 0, 1)).astype(np.uint8)

    def bands_shown(self, count: int) -> list[int]:
        """Return the bands of an image with `count` bands that are drawn as red, green and blue."""
        return list(self.show) if self.show is not None else [0, 1, 2] if count >= 3 else [0, 0, 0]

    def description(self, count: int) -> str:
        """Return a text about the bands that are drawn."""
        low, high = PERCENTILES
        bands = ', '.join(map(str, self.bands_shown(count)))
        return f'bands {bands} as red, green, blue; percentiles {low} to {high} of each as 0 to 255'

    def _as_bands(self, path: Path, array: np.ndarray, axes: str) -> np.ndarray:
        if array.dtype.kind not in 'buif' or not array.size:
            problem = f'{path} has shape {array.shape} and dtype {array.dtype}'
            raise UnreadableError(f'{problem}; save integers or real numbers.')
        if array.ndim == 2:
            array = array[..., None]
        elif array.ndim != 3 or not set('YX') <= set(axes or 'YX') or set('TZ') & set(axes):
            labels = f' with axes {axes}' if axes else ''
            raise UserError(f'{path} has shape {array.shape}{labels}; save one image of height, width and bands.')
        else:
            array = np.moveaxis(array, self._band_axis(path, array.shape, axes), 2)
        image = np.ascontiguousarray(array, np.float32)
        if not np.isfinite(image).all():
            bands = np.flatnonzero(~np.isfinite(image).all((0, 1))).tolist()
            problem = f'{path} contains NaN, infinity or values beyond float32 in bands {bands}'
            raise UnreadableError(f'{problem}; replace these values, for example by 0.')
        return image

    def _band_axis(self, path: Path, shape: tuple[int, ...], axes: str) -> int:
        labelled = [axis for axis in (axes.find('S'), axes.find('C')) if axis >= 0]
        if labelled:
            return labelled[0]
        if self.channels:
            return 0 if self.channels == 'first' else 2
        candidates = [axis for axis in (0, 2) if shape[axis] <= MOST_BANDS]
        if len(candidates) != 1:
            found = 'both the first and the last' if candidates else 'neither the first nor the last'
            problem = f'{path} has shape {shape}, and {found} axis has at most {MOST_BANDS} values'
            raise UserError(f"{problem}; set channels='first' or channels='last' of LoadMultiBandImage.")
        return candidates[0]


def multi_band_loader(pipeline: Sequence[Any]) -> LoadMultiBandImage | None:
    """Return the LoadMultiBandImage of a pipeline in a config, None if it has another loader."""
    for transform in pipeline:
        if type_name(transform) == LoadMultiBandImage.__name__:
            arguments = {key: value for key, value in transform.items() if key != 'type' and not key.startswith('_')}
            if unknown := arguments.keys() - {'channels', 'show'}:
                raise UserError(f'LoadMultiBandImage has no argument {min(unknown)}; remove it from the pipeline.')
            return LoadMultiBandImage(**arguments)
    return None


def type_name(node: Any) -> str:
    """Return the type of a section of a config without its scope; a lazy config contains the class itself."""
    node_type = node.get('type', '')
    return node_type.__name__ if isinstance(node_type, type) else str(node_type).rpartition('.')[2]


def _read_tiff(path: Path) -> tuple[np.ndarray, str]:
    with explained_imports():
        import tifffile

    with tifffile.TiffFile(path) as file:
        images = [series for series in file.series if not (series.keyframe.is_reduced or series.keyframe.is_mask)]
        first, *others = images
        if others:
            shapes = ', '.join(str(series.shape) for series in images)
            raise UserError(f'{path} contains several images, of shapes {shapes}; save one image of all bands.')
        try:
            return first.asarray(), first.axes
        except ValueError as error:
            # Fall back to OpenCV for LZW without imagecodecs, but only for grey and RGB, because OpenCV swaps the first
            # and third band.
            is_rgb = first.axes == 'YXS' and first.shape[2] == 3 and first.keyframe.photometric == 2
            if 'imagecodecs' not in str(error) or not (first.axes == 'YX' or is_rgb):
                raise
    return _read_ordinary(path)


def _read_npy(path: Path) -> tuple[np.ndarray, str]:
    return np.load(path, allow_pickle=False), ''


def _read_ordinary(path: Path) -> tuple[np.ndarray, str]:
    is_jpeg = path.suffix.lower() in ('.jpg', '.jpeg')  # turned by its EXIF orientation, as mmcv does
    flag = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR if is_jpeg else cv2.IMREAD_UNCHANGED
    image = cv2.imdecode(np.fromfile(path, np.uint8), flag)
    if image is None:
        raise ValueError('OpenCV cannot decode it')
    if image.ndim == 3:
        image = image[..., [2, 1, 0, 3][: image.shape[2]]]
    return image, 'YX' if image.ndim == 2 else 'YXS'
