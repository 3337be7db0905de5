"""Exported segmentor as a model of mmsegmentation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmseg.models.segmentors import EncoderDecoder
from mmseg.models.segmentors.base import BaseSegmentor
from torch import Tensor

from ..registry import MODELS
from .runtime import ExportedFile, to_uint8


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
        return torch.from_numpy(self.exported(to_uint8(inputs))['scores']).to(inputs.device)
