"""An exported segmentor as a model of mmsegmentation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmseg.models.segmentors import EncoderDecoder
from mmseg.models.segmentors.base import BaseSegmentor
from torch import Tensor

from ..registry import MODELS
from .files import ExportedFile, images_of


@MODELS.register_module()
class ExportedSegmentor(EncoderDecoder):
    """mmsegmentation's model with a file in place of the network: whole and sliding inference, resizing of the scores
    and results are mmsegmentation's own.

    Args:
        file: what ``tools/export.py`` wrote.
        model: the config of the model that was exported.
        classes: what the data are labelled with, if that is to be compared.

    Raises:
        UserError: the file is no whole segmentor, or has other classes.
    """

    def __init__(self, file: str | Path | ExportedFile, model: Mapping[str, Any], classes: Sequence[str] | None = None):
        kind = model['data_preprocessor']['type']
        BaseSegmentor.__init__(self, dict(type=kind))  # the file normalizes
        self.exported = file if isinstance(file, ExportedFile) else ExportedFile(Path(file))
        self.exported.check('mmseg', classes)
        self.test_cfg, self.train_cfg = model['test_cfg'], None
        self.align_corners = model['decode_head'].get('align_corners', False)
        self.out_channels = len(self.exported.metadata['classes'])

    def encode_decode(self, inputs: Tensor, batch_img_metas: Sequence[dict]) -> Tensor:
        return torch.from_numpy(self.exported(images_of(inputs))['scores']).to(inputs.device)
