"""Parts of a model as modules from images to tensors: what is exported."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from .exportable import exportable
from .preprocessing import Preprocessing


class Graph(nn.Module):
    """A part of a model, from images (B, 3, H, W) of 8 bits, in BGR as OpenCV reads them, to float32.

    Attributes:
        outputs: the names of what :meth:`forward` gives.
    """

    outputs: tuple[str, ...]

    def __init__(self, model: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.preprocessing = Preprocessing(model.cfg.model.data_preprocessor, dtype)
        self.network = exportable(model).to(dtype)


class PyramidGraph(Graph):
    """The feature maps of the backbone, or of the neck behind it."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, part: str):
        super().__init__(model, dtype)
        self.part = part
        if part == 'neck' and not hasattr(model, 'neck'):
            raise UserError('--part neck: this model has none; give backbone or model.')
        with torch.no_grad():
            self.outputs = tuple(f'map{i}' for i in range(len(self(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)))))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.preprocessing(images)
        maps = self.network.backbone(x) if self.part == 'backbone' else self.network.extract_feat(x)
        return tuple(each.float() for each in maps)


class SegmentorGraph(Graph):
    """Scores of the classes (B, classes, H, W) before softmax, and the label map (B, H, W) of the highest."""

    outputs = ('scores', 'labels')

    def __init__(self, model: nn.Module, dtype: torch.dtype):
        if type(model).__name__ != 'EncoderDecoder' or model.out_channels < 2:
            raise UserError(f'{type(model).__name__} cannot be exported whole; --part backbone or neck can.')
        super().__init__(model, dtype)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        head = self.network.decode_head
        maps = self.network.extract_feat(self.preprocessing(images))
        size, aligned = images.shape[-2:], head.align_corners
        scores = F.interpolate(head(maps).float(), size, mode='bilinear', align_corners=aligned)
        return scores, scores.argmax(1)
