"""What ``tools/test.py --out`` needs for segmentation."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import DumpResults

from ..registry import METRICS


@METRICS.register_module()
class DumpLabelMaps(DumpResults):
    """Writes a pickle with a list of ``dict(img_path=..., pred_sem_seg=uint8 (H, W))``, one for each image; mmengine's
    DumpResults would keep the class scores of every pixel: gigabytes for ADE20K."""

    def process(self, data_batch: Any, predictions: Sequence[dict]) -> None:
        for sample in predictions:
            labels = sample['pred_sem_seg']['data'][0].to('cpu', torch.uint8).numpy()
            self.results.append(dict(img_path=sample['img_path'], pred_sem_seg=labels))
