"""Metrics that write label maps, for ``--out`` and ``--report`` of ``tools/test.py``."""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.evaluator import BaseMetric, DumpResults

from ..registry import METRICS


@METRICS.register_module()
class DumpLabelMaps(DumpResults):
    """Writes a pickle with a list of ``dict(img_path=..., pred_sem_seg=uint8 (H, W))``, one for each image.

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
            name = f'{Path(path).stem}_{zlib.crc32(path.encode()):08x}'  # images of several folders may share a name
            for side, key in (('truth', 'gt_sem_seg'), ('labels', 'pred_sem_seg')):
                file = self.folder / side / f'{name}.png'
                file.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(file), sample[key]['data'][0].cpu().numpy().astype(dtype))
            self.results.append((name, path))

    def compute_metrics(self, results: list[tuple[str, str]]) -> dict[str, float]:
        (self.folder / 'images.json').write_text(json.dumps(dict(results), indent=1) + '\n', encoding='utf-8')
        return {}
