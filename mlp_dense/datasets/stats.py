"""Mean and standard deviation of each band over many images, for the data preprocessor of a config."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserError, counted
from .bands import BAND_SUFFIXES, LoadMultiBandImage


@dataclass(frozen=True)
class BandStatistics:
    """Statistics of the pixels of all images, with one value for each band."""

    images: int
    mean: list[float]
    std: list[float]
    low: list[float]  # least value
    high: list[float]  # largest value

    def settings(self) -> str:
        """Return the lines of a config that normalize images of these bands."""
        mean, std = ([float(f'{value:.6g}') for value in values] for values in (self.mean, self.std))
        preprocessor = f'dict(mean={mean}, std={std}, bgr_to_rgb=False)'
        return f'model = dict(backbone=dict(in_channels={len(mean)}), data_preprocessor={preprocessor})'


def image_files(folder: Path) -> list[Path]:
    """Return the images in and below a folder, sorted by path. Raises UserError if there are none."""
    files = sorted(file for file in folder.rglob('*') if file.suffix.lower() in BAND_SUFFIXES and file.is_file())
    if not files:
        raise UserError(f'{folder} contains no images; choose a folder with files of {", ".join(BAND_SUFFIXES)}.')
    return files


def measure_bands(files: Iterable[Path], loader: LoadMultiBandImage | None = None) -> BandStatistics:
    """Measure each band over all pixels of some images, in one pass and in float64.

    `loader` reads the files, by default with the rule of :class:`LoadMultiBandImage`. Raises UserError if an image is
    unreadable, if images differ in their number of bands, or if a band is constant.
    """
    loader = loader or LoadMultiBandImage()
    images = count = 0
    mean = squares = low = high = np.zeros(0)  # squares: sum of the squared differences from the mean
    for file in files:
        image = loader.read(file)
        pixels = image.reshape(-1, image.shape[2]).astype(np.float64)
        images += 1
        if images == 1:
            first, mean, squares = file, np.zeros(pixels.shape[1]), np.zeros(pixels.shape[1])
            low, high = np.full_like(mean, np.inf), np.full_like(mean, -np.inf)
        if len(mean) != pixels.shape[1]:
            problem = f'{first} has {len(mean)} bands, but {file} has {pixels.shape[1]}'
            raise UserError(f'{problem}; measure images with the same number of bands.')
        # the update of Chan et al. (1979), which loses no digits to large means
        size, image_mean = len(pixels), pixels.mean(0)
        difference, total = image_mean - mean, count + size
        mean = mean + difference * size / total
        squares = squares + ((pixels - image_mean) ** 2).sum(0) + difference**2 * count * size / total
        count, low, high = total, np.minimum(low, pixels.min(0)), np.maximum(high, pixels.max(0))
    if not images:
        raise UserError('There are no images to measure; pass some files.')
    if constant := np.flatnonzero(low == high).tolist():
        problem = f'Bands {constant} are constant over {counted(images, "image")}'
        raise UserError(f'{problem}; remove them from the files.')
    return BandStatistics(images, mean.tolist(), np.sqrt(squares / count).tolist(), low.tolist(), high.tolist())
