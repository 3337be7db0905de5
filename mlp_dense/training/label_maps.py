"""Loss, metrics and a transform of label maps that mmsegmentation lacks."""

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric, DumpResults
from mmseg.models.data_preprocessor import SegDataPreProcessor as _SegDataPreProcessor
from mmseg.models.losses import CrossEntropyLoss
from torch import Tensor

from ..datasets.image_files import write_image
from ..errors import UserError
from ..registry import METRICS, MODELS, TRANSFORMS
from .normalization import AnyBands


@MODELS.register_module()
class WeightedCrossEntropyLoss(CrossEntropyLoss):
    """A CrossEntropyLoss of mmseg with `class_weight`: the weighted mean over the pixels that are not ignored.

    That of mmseg 1.2.2 fails if a label map has an ignored pixel, because it looks up the weight of the ignored label.
    """

    def forward(
        self, scores: Tensor, labels: Tensor, weight: Tensor | None = None, ignore_index: int = 255, **kwargs: Any
    ) -> Tensor:
        """Return the loss of scores (B, classes, H, W) and labels (B, H, W), with weights (B, H, W) of a sampler."""
        scores = scores.float()  # the sum over all pixels overflows 16 bits
        class_weight = scores.new_tensor(self.class_weight)
        total = class_weight[labels[labels != ignore_index]].sum()
        return super().forward(scores, labels, weight, avg_factor=total, ignore_index=ignore_index, **kwargs)


@TRANSFORMS.register_module()
class MapLabels:
    """Transform after LoadAnnotations that replaces labels: ``labels={255: 1}`` for masks of 0 and 255."""

    def __init__(self, labels: Mapping[int, int]):
        self.table = np.arange(256, dtype=np.uint8)
        for label, new in labels.items():
            if not 0 <= int(label) < 256 or not 0 <= new < 256:
                raise UserError(f'MapLabels maps {label} to {new}; use labels from 0 to 255.')
            self.table[int(label)] = new

    def __call__(self, results: dict) -> dict:
        results['gt_seg_map'] = self.table[results['gt_seg_map']]
        return results


@MODELS.register_module()
class SegDataPreProcessor(AnyBands, _SegDataPreProcessor):
    """A SegDataPreProcessor of mmsegmentation for images of any number of bands."""


@METRICS.register_module()
class DumpLabelMaps(DumpResults):
    """Writes a pickle with ``dict(img_path=..., pred_sem_seg=uint8 (H, W))`` for each image (tools/test.py --out).

    DumpResults of mmengine would keep the class scores of every pixel, which are gigabytes for ADE20K.
    """

    def process(self, data_batch: Any, predictions: Sequence[dict]) -> None:
        for sample in predictions:
            labels = sample['pred_sem_seg']['data'][0].to('cpu', torch.uint8).numpy()
            self.results.append(dict(img_path=sample['img_path'], pred_sem_seg=labels))


@METRICS.register_module()
class WriteLabelMaps(BaseMetric):
    """Writes class indices to ``truth/NAME.png`` and ``labels/NAME.png``; ``images.json`` has the paths by NAME."""

    def __init__(self, folder: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.folder = Path(folder)

    def process(self, data_batch: Any, predictions: Sequence[dict]) -> None:
        dtype = np.uint8 if len(self.dataset_meta['classes']) < 255 else np.uint16
        for sample in predictions:
            path = sample['img_path']
            # images of several folders may share a name
            name = f'{Path(path).stem}_{zlib.crc32(os.fsencode(path)):08x}'
            for side, key in (('truth', 'gt_sem_seg'), ('labels', 'pred_sem_seg')):
                write_image(self.folder / side / f'{name}.png', sample[key]['data'][0].cpu().numpy().astype(dtype))
            self.results.append((name, path))

    def compute_metrics(self, results: list[tuple[str, str]]) -> dict[str, float]:
        (self.folder / 'images.json').write_text(json.dumps(dict(results), indent=1) + '\n', encoding='utf-8')
        return {}
