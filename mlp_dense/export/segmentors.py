"""Segmentors of mmsegmentation, as graphs to export and as exported models."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.models.segmentors import EncoderDecoder
from mmseg.models.segmentors.base import BaseSegmentor
from torch import Tensor

from ..registry import MODELS
from .graphs import Graph, not_exportable
from .runtime import ExportedFile


class SegmentorGraph(Graph):
    """Class scores (B, classes, H, W) before softmax, and the label map (B, H, W) of the highest score."""

    outputs = ('scores', 'labels')

    def __init__(self, model: Any, dtype: torch.dtype):
        if type(model).__name__ != 'EncoderDecoder':
            raise not_exportable(model)
        if model.out_channels < 2:
            raise not_exportable(model, 'a single class')
        super().__init__(model, dtype)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        head, size = self.network.decode_head, images.shape[-2:]
        logits = head(self.network.extract_feat(self.preprocess(images))).float()
        scores = F.interpolate(logits, size, mode='bilinear', align_corners=head.align_corners)
        return scores, scores.argmax(1)


@MODELS.register_module()
class ExportedSegmentor(EncoderDecoder):
    """Model of mmsegmentation that runs an exported file instead of a network.

    Sliding windows, resizing of scores and results are mmsegmentation's own. Arguments: see ``ExportedDetector``.
    """

    def __init__(self, file: str | Path | ExportedFile, model: Mapping[str, Any], classes: Sequence[str] | None = None):
        BaseSegmentor.__init__(self, dict(type=model['data_preprocessor']['type']))  # the file normalizes
        self.exported = file if isinstance(file, ExportedFile) else ExportedFile(Path(file))
        self.exported.check('mmseg', classes)
        self.test_cfg, self.train_cfg = model['test_cfg'], None
        self.align_corners = model['decode_head'].get('align_corners', False)
        self.out_channels = len(self.exported.metadata['classes'])

    def encode_decode(self, inputs: Tensor, batch_img_metas: Sequence[dict]) -> Tensor:
        return torch.from_numpy(self.exported(self.exported.images(inputs))['scores']).to(inputs.device)
