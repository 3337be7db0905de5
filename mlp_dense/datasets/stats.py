"""Mean and standard deviation of each band over many images, for the data preprocessor of a config."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError, counted
from .bands import BAND_SUFFIXES, LoadMultiBandImage


def settings(mean: np.ndarray, std: np.ndarray) -> str:
    """Return the line of a config that normalizes images with these statistics of their bands (C,)."""
    rounded = ([float(f'{value:.6g}') for value in values] for values in (mean, std))
    preprocessor = 'dict(mean={}, std={}, bgr_to_rgb=False)'.format(*rounded)
    return f'model = dict(backbone=dict(in_channels={len(mean)}), data_preprocessor={preprocessor})'


def image_files(folder: Path) -> list[Path]:
    """Return the images in and below a folder, sorted by path. Raises UserError if there are none."""
    files = sorted(file for file in folder.rglob('*') if file.suffix.lower() in BAND_SUFFIXES and file.is_file())
    if not files:
        raise UserError(f'{folder} contains no images; choose a folder with files of {", ".join(BAND_SUFFIXES)}.')
    return files


def measure_bands(files: Sequence[Path], loader: LoadMultiBandImage) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation (C,) of the bands of some images, in one pass and in float64.

    Raises UserError if an image is unreadable, if images differ in their number of bands, or if a band is constant.
    """
    count = 0  # pixels
    mean = squares = low = high = np.zeros(0)  # squares: sum of the squared differences from the mean
    for file in files:
        image = loader.read(file)
        pixels = image.reshape(-1, image.shape[2]).astype(np.float64)
        if not count:
            mean = squares = np.zeros(pixels.shape[1])
            low, high = np.full_like(mean, np.inf), np.full_like(mean, -np.inf)
        if len(mean) != pixels.shape[1]:
            problem = f'{files[0]} has {len(mean)} bands, but {file} has {pixels.shape[1]}'
            raise UserError(f'{problem}; measure images with the same number of bands.')
        # the update of Chan et al. (1979), which loses no digits to large means
        size, image_mean = len(pixels), pixels.mean(0)
        difference, total = image_mean - mean, count + size
        mean = mean + difference * size / total
        squares = squares + ((pixels - image_mean) ** 2).sum(0) + difference**2 * count * size / total
        count, low, high = total, np.minimum(low, pixels.min(0)), np.maximum(high, pixels.max(0))
    if constant := np.flatnonzero(low == high).tolist():
        problem = f'Bands {constant} are constant over {counted(len(files), "image")}'
        raise UserError(f'{problem}; remove them from the files.')
    return mean, np.sqrt(squares / count)
