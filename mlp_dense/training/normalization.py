"""Normalization of images of any number of bands; the data preprocessors of mmengine and mmdet take one or three."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class AnyBands(nn.Module):
    """Mixin of an ImgDataPreprocessor of mmengine, whose `mean` and `std` have one value for each band."""

    def __init__(self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if mean is not None and std is not None:
            self._enable_normalize = True
            self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1), False)
            self.register_buffer('std', torch.tensor(std).view(-1, 1, 1), False)
