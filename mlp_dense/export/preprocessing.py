"""What stands before the network: images as they are read, to the normalized input."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.compat import round_up
from ..errors import UserError


class Preprocessing(nn.Module):
    """What the data preprocessor of a config does with images in a test: order of the channels, mean, standard
    deviation, and zeros at the right and the bottom up to a multiple of the size divisor.

    Args:
        cfg: the ``data_preprocessor`` of a config of mmdet or mmsegmentation.
        dtype: of the network.

    Raises:
        UserError: it does more than that.
    """

    def __init__(self, cfg: Mapping[str, Any], dtype: torch.dtype = torch.float32):
        super().__init__()
        if cfg.get('test_cfg') or cfg.get('pad_value', 0):
            raise UserError('model.data_preprocessor: test_cfg and a pad_value other than 0 cannot be exported.')
        self.swaps, self.dtype = bool(cfg.get('bgr_to_rgb') or cfg.get('rgb_to_bgr')), dtype
        self.divisor = cfg.get('pad_size_divisor', 1)
        self.mean, self.std = (list(cfg.get(key) or default) for key, default in (('mean', [0.0]), ('std', [1.0])))
        for name, values in (('means', self.mean), ('stds', self.std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) of 8 bits to (B, 3, height, width)."""
        x = images.float()
        if self.swaps:
            x = x.flip(1)
        x = (x - self.means) / self.stds
        height, width = x.shape[-2:]
        if self.divisor > 1:
            x = F.pad(x, (0, round_up(width, self.divisor) - width, 0, round_up(height, self.divisor) - height))
        return x.to(self.dtype)

    def describe(self) -> dict[str, Any]:
        """For the metadata of a file."""
        return dict(
            images=dict(layout='NCHW', channels='BGR', dtype='uint8'),
            in_graph=dict(to_rgb=self.swaps, mean=self.mean, std=self.std, size_divisor=self.divisor),
        )
