"""Detectors of mmdet with anchors: graphs to export (RetinaNet; Faster, Mask, Cascade R-CNN) and exported models."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from mmdet.models.dense_heads import RetinaHead, RPNHead
from mmdet.models.detectors import BaseDetector
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead, Shared2FCBBoxHead, Shared4Conv1FCBBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..errors import UserError
from ..registry import MODELS
from .boxes import check_nms, gather_rows, select_candidates, suppress
from .graphs import Graph, not_exportable
from .runtime import ExportedFile

EXPORTABLE = (
    *(RetinaHead, RPNHead, StandardRoIHead, CascadeRoIHead, SingleRoIExtractor, FCNMaskHead),
    *(ConvFCBBoxHead, Shared2FCBBoxHead, Shared4Conv1FCBBoxHead),
)


class DenseDetectorGraph(Graph):
    """Detector with one dense head on anchors.

    The outputs have K = ``max_per_img`` slots, by descending score: boxes (B, K, 4) as x1, y1, x2, y2 in pixels of the
    input images, scores (B, K), labels (B, K). A slot without an object has score 0 and label -1.
    """

    outputs = ('boxes', 'scores', 'labels')

    def __init__(self, model: Any, dtype: torch.dtype):
        cfg = model.test_cfg
        _check_modules(model, [model.bbox_head])
        check_nms(cfg.nms, 'model.test_cfg.nms')
        if cfg.get('nms_pre', -1) < 1 or cfg.get('min_bbox_size', 0) > 0:
            raise UserError('model.test_cfg cannot be exported; set nms_pre to 1 or more, and min_bbox_size to 0.')
        super().__init__(model, dtype)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        cfg, head, size = self.network.test_cfg, self.network.bbox_head, images.shape[-2:]
        maps = self.network.extract_feat(self.preprocess(images))
        boxes, scores, labels, _ = select_candidates(head, maps, size, cfg.nms_pre, cfg.get('score_thr', 0.0))
        return suppress(boxes, scores, labels, cfg.nms, cfg.max_per_img, cfg.get('min_bbox_size', -1))


class TwoStageGraph(Graph):
    """Detector with proposals and a RoI head.

    The outputs are those of :class:`DenseDetectorGraph`. A mask head adds masks (B, K, 28, 28): the probability that a
    cell of the box belongs to the object. Each image has ``rpn.max_per_img`` proposals, even if fewer were found.
    """

    def __init__(self, model: Any, dtype: torch.dtype):
        _check_two_stage(model)
        self.outputs = ('boxes', 'scores', 'labels', *(('masks',) if model.roi_head.with_mask else ()))
        super().__init__(model, dtype)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        size, rpn, rcnn = images.shape[-2:], self.network.test_cfg.rpn, self.network.test_cfg.rcnn
        maps = self.network.extract_feat(self.preprocess(images))
        boxes, scores, _, levels = select_candidates(self.network.rpn_head, maps, size, rpn.nms_pre, -1.0)
        proposals, _, levels = suppress(
            boxes, scores, levels, rpn.nms, rpn.max_per_img, rpn.get('min_bbox_size', -1)
        )  # (B, max_per_img, 4), zeros and level -1 in empty slots
        boxes, scores = self.refine(maps, to_rois(proposals), size)
        batch, classes = images.shape[0], scores.shape[1]
        scores = torch.where((levels >= 0).unsqueeze(2), scores.reshape(batch, -1, classes), -1.0).flatten(1)
        scores = torch.where(scores > rcnn.score_thr, scores, -1.0)
        labels = torch.arange(classes).expand(proposals.shape[1], -1).flatten()
        objects = suppress(boxes.reshape(batch, -1, 4), scores, labels, rcnn.nms, rcnn.max_per_img)
        return (*objects, self.masks(maps, objects[0], objects[2])) if self.network.roi_head.with_mask else objects

    def refine(self, maps: Sequence[Tensor], rois: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return boxes (N, classes, 4) and scores (N, classes) of proposals (N, 5), after all stages of a cascade."""
        roi_head, all_logits = self.network.roi_head, []
        stages = list(zip(_stages(roi_head.bbox_head), _stages(roi_head.bbox_roi_extractor), strict=True))
        for head, extractor in stages:
            logits, deltas = (output.float() for output in head(pool_rois(extractor, maps, rois)))
            deltas = deltas.unflatten(1, (-1, 4))
            all_logits.append(logits)
            if head is not stages[-1][0]:  # the next stage starts from the box of the top class
                if not head.reg_class_agnostic:
                    deltas = gather_rows(deltas, logits[:, :-1].argmax(1, keepdim=True))
                rois = torch.cat([rois[:, :1], head.bbox_coder.decode(rois[:, 1:], deltas.squeeze(1), size)], 1)
        scores = (sum(all_logits) / len(all_logits)).softmax(1)[:, :-1]
        deltas, boxes = (values.expand(-1, scores.shape[1], -1) for values in (deltas, rois[:, None, 1:]))
        boxes = head.bbox_coder.decode(boxes.reshape(-1, 4), deltas.reshape(-1, 4), size)
        return boxes.unflatten(0, (-1, scores.shape[1])), scores

    def masks(self, maps: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """Return the masks (B, K, 28, 28) of boxes (B, K, 4) with labels (B, K)."""
        roi_head, rois, all_masks = self.network.roi_head, to_rois(boxes), []
        for head, extractor in zip(_stages(roi_head.mask_head), _stages(roi_head.mask_roi_extractor), strict=True):
            masks = head(pool_rois(extractor, maps, rois)).float().sigmoid()
            if not head.class_agnostic:
                index = labels.clamp(min=0).reshape(-1, 1, 1, 1).expand(-1, 1, *masks.shape[2:])
                masks = masks.gather(1, index)
            all_masks.append(masks)
        return (sum(all_masks) / len(all_masks)).reshape(*labels.shape, *masks.shape[2:])


def to_rois(boxes: Tensor) -> Tensor:
    """Return boxes (B, N, 4) as (B * N, 5), with the index of their image first."""
    index = torch.arange(boxes.shape[0], dtype=boxes.dtype)[:, None, None].expand(-1, boxes.shape[1], 1)
    return torch.cat([index, boxes], 2).flatten(0, 1)


def pool_rois(extractor: Any, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
    """Pool each box from the level that suits its size, to (N, C, h, w)."""
    layers = extractor.roi_layers
    levels, scales = extractor.map_roi_levels(rois, len(layers)), [float(layer.spatial_scale) for layer in layers]
    ratio, size = int(layers[0].sampling_ratio), list(layers[0].output_size)
    arguments = [level_map.float() for level_map in maps[: len(layers)]], rois, levels, size, scales, ratio
    return torch.ops.mlp_dense.roi_align_levels.default(*arguments).to(maps[0].dtype)


def _check_two_stage(model: Any) -> None:
    """Raise UserError if a module or a setting of a model is not supported by :class:`TwoStageGraph`."""
    roi_head, cfg = model.roi_head, model.test_cfg
    extractors = _stages(roi_head.bbox_roi_extractor)
    mask_heads = _stages(roi_head.mask_head) if roi_head.with_mask else []
    _check_modules(model, [model.rpn_head, roi_head, *extractors, *_stages(roi_head.bbox_head), *mask_heads])
    for layer in (layer for extractor in extractors for layer in extractor.roi_layers):
        if type(layer).__name__ != 'RoIAlign' or not layer.aligned or layer.pool_mode != 'avg':
            raise not_exportable(model, str(layer))
    for stage in ('rpn', 'rcnn'):
        check_nms(cfg[stage].nms, f'model.test_cfg.{stage}.nms')
    if cfg.rpn.get('nms_pre', -1) < 1 or cfg.rcnn.get('max_per_img', -1) < 1:
        raise UserError('model.test_cfg cannot be exported; set rpn.nms_pre and rcnn.max_per_img to 1 or more.')


def _check_modules(model: Any, modules: Sequence[Any]) -> None:
    for module in modules:
        has_own_channels = getattr(getattr(module, 'loss_cls', None), 'custom_cls_channels', False)
        if type(module) not in EXPORTABLE or has_own_channels:
            raise not_exportable(model, f'a {type(module).__name__}')


def _stages(module: Any) -> list[Any]:
    return list(module) if isinstance(module, nn.ModuleList) else [module]


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
            images = self.exported.images(torch.stack(inputs)[:, :, :height, :width])
            outputs = {name: torch.from_numpy(values) for name, values in self.exported(images).items()}
            for i, sample in enumerate(samples):
                detections = {name: values[i][outputs['labels'][i] >= 0] for name, values in outputs.items()}
                results.append(self._to_instances(detections, sample.metainfo, rescale).to(batch_inputs.device))
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _to_instances(self, detections: Mapping[str, Tensor], meta: dict, rescale: bool) -> InstanceData:
        result = InstanceData(bboxes=detections['boxes'], scores=detections['scores'], labels=detections['labels'])
        if 'masks' in detections:
            masks = [detections['masks'].unsqueeze(1).numpy()]
            cfg = dict(rcnn_test_cfg=self.mask_cfg, rescale=rescale, activate_map=True)  # masks are probabilities
            return self.mask_paster.predict_by_feat(masks, [result], [meta], **cfg)[0]
        if rescale:
            result.bboxes = result.bboxes / result.bboxes.new_tensor(meta['scale_factor']).repeat(2)
        return result

    def _forward(self, *_: Any) -> None:
        raise NotImplementedError('An exported detector only predicts; use its checkpoint for everything else.')

    extract_feat = loss = _forward
