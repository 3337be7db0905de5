"""Exported detector as a model of mmdet."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.utils import empty_instances
from mmengine.structures import InstanceData
from torch import Tensor

from ..registry import MODELS
from .runtime import ExportedFile, to_uint8


@MODELS.register_module()
class ExportedDetector(BaseDetector):
    """Model of mmdet that runs an exported file instead of a network.

    The file ends with non-maximum suppression. This class scales boxes and pastes masks to the original image. Images
    of several sizes in a batch run one size after the other, without padding.

    Args:
        file: file written by ``tools/export.py``.
        model: config of the model that was exported.
        classes: class names of the data, to compare with those of the file; None skips the comparison.
    """

    def __init__(self, file: str | Path | ExportedFile, model: Mapping[str, Any], classes: Sequence[str] | None = None):
        super().__init__(dict(type=model['data_preprocessor']['type']))  # the file normalizes and pads
        self.exported = file if isinstance(file, ExportedFile) else ExportedFile(Path(file))
        self.exported.check('mmdet', classes)
        self.mask_cfg = model['test_cfg'].get('rcnn')
        # Only pastes masks; the exported masks have one class each.
        self.mask_paster = FCNMaskHead(num_convs=0, in_channels=1, conv_out_channels=1, class_agnostic=True)

    def predict(self, batch_inputs: Tensor, batch_data_samples: list, rescale: bool = True) -> list:
        results: list[InstanceData] = []
        pairs = zip(batch_inputs, batch_data_samples, strict=True)
        for (height, width), group in groupby(pairs, lambda pair: pair[1].metainfo['img_shape'][:2]):
            inputs, samples = zip(*group, strict=True)
            images = to_uint8(torch.stack(inputs)[:, :, :height, :width])
            outputs = {name: torch.from_numpy(values) for name, values in self.exported(images).items()}
            for i, sample in enumerate(samples):
                detections = {name: values[i][outputs['labels'][i] >= 0] for name, values in outputs.items()}
                results.append(self._to_instances(detections, sample.metainfo, rescale).to(batch_inputs.device))
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _to_instances(self, detections: Mapping[str, Tensor], meta: dict, rescale: bool) -> InstanceData:
        result = InstanceData(bboxes=detections['boxes'], scores=detections['scores'], labels=detections['labels'])
        if 'masks' in detections:
            if not len(result):
                settings = dict(instance_results=[result], mask_thr_binary=self.mask_cfg['mask_thr_binary'])
                return empty_instances([meta], result.bboxes.device, 'mask', **settings)[0]
            masks = [detections['masks'].unsqueeze(1).numpy()]
            cfg = dict(rcnn_test_cfg=self.mask_cfg, rescale=rescale, activate_map=True)  # masks are probabilities
            return self.mask_paster.predict_by_feat(masks, [result], [meta], **cfg)[0]
        if rescale:
            result.bboxes = result.bboxes / result.bboxes.new_tensor(meta['scale_factor']).repeat(2)
        return result

    def extract_feat(self, batch_inputs: Tensor) -> None:
        raise NotImplementedError('An exported detector has no feature maps; use --part backbone or neck to export.')

    def loss(self, batch_inputs: Tensor, batch_data_samples: list) -> None:
        raise NotImplementedError('An exported detector cannot be trained; train the checkpoint, and export it again.')

    def _forward(self, batch_inputs: Tensor, batch_data_samples: list | None = None) -> dict[str, Any]:
        return self.exported(to_uint8(batch_inputs))
