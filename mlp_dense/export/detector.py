"""An exported detector as a model of mmdet."""

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
from .files import ExportedFile, images_of


@MODELS.register_module()
class ExportedDetector(BaseDetector):
    """mmdet's model with a file in place of the network, down to non-maximum suppression; boxes are scaled and masks
    pasted to the size of the original image here. Images of several sizes in a batch run one size after the other, so
    that none is padded for the sake of another.

    Args:
        file: what ``tools/export.py`` wrote.
        model: the config of the model that was exported.
        classes: what the data are labelled with, if that is to be compared.

    Raises:
        UserError: the file is no whole detector, or has other classes.
    """

    def __init__(self, file: str | Path | ExportedFile, model: Mapping[str, Any], classes: Sequence[str] | None = None):
        super().__init__(dict(type=model['data_preprocessor']['type']))  # the file normalizes and pads
        self.exported = file if isinstance(file, ExportedFile) else ExportedFile(Path(file))
        self.exported.check('mmdet', classes)
        self.mask_cfg = model['test_cfg'].get('rcnn')
        # Of it only the pasting, of masks of one class each.
        self.pasting = FCNMaskHead(num_convs=0, in_channels=1, conv_out_channels=1, class_agnostic=True)

    def predict(self, batch_inputs: Tensor, batch_data_samples: list, rescale: bool = True) -> list:
        results: list[InstanceData] = []
        for (height, width), group in groupby(zip(batch_inputs, batch_data_samples, strict=True), _size):
            inputs, samples = zip(*group, strict=True)
            images = images_of(torch.stack(inputs)[:, :, :height, :width])
            outputs = {name: torch.from_numpy(each) for name, each in self.exported(images).items()}
            for i, sample in enumerate(samples):
                found = {name: each[i][outputs['labels'][i] >= 0] for name, each in outputs.items()}
                results.append(self.to_original_size(found, sample.metainfo, rescale).to(batch_inputs.device))
        return self.add_pred_to_datasample(batch_data_samples, results)

    def to_original_size(self, found: Mapping[str, Tensor], meta: dict, rescale: bool) -> InstanceData:
        """The objects of one image: on the image that was read, if `rescale`."""
        result = InstanceData(bboxes=found['boxes'], scores=found['scores'], labels=found['labels'])
        if 'masks' in found and not len(result):
            threshold = self.mask_cfg['mask_thr_binary']
            args = dict(task_type='mask', instance_results=[result], mask_thr_binary=threshold)
            return empty_instances([meta], result.bboxes.device, **args)[0]
        if 'masks' in found:
            masks = [found['masks'].unsqueeze(1).numpy()]
            how = dict(rcnn_test_cfg=self.mask_cfg, rescale=rescale, activate_map=True)  # they are probabilities
            return self.pasting.predict_by_feat(masks, [result], [meta], **how)[0]
        if rescale:
            result.bboxes = result.bboxes / result.bboxes.new_tensor(meta['scale_factor']).repeat(2)
        return result

    def extract_feat(self, batch_inputs: Tensor) -> None:
        raise NotImplementedError('An exported detector has no feature maps; export --part backbone or neck.')

    def loss(self, batch_inputs: Tensor, batch_data_samples: list) -> None:
        raise NotImplementedError('An exported detector cannot be trained; train the checkpoint, and export it again.')

    def _forward(self, batch_inputs: Tensor, batch_data_samples: list | None = None) -> dict[str, Any]:
        return self.exported(images_of(batch_inputs))


def _size(pair: tuple[Tensor, Any]) -> tuple[int, int]:
    return tuple(pair[1].metainfo['img_shape'][:2])
