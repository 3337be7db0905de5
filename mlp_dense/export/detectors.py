"""Graphs of mmdet's detectors with anchors, from images to objects: RetinaNet; Faster, Mask and Cascade R-CNN."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import AnchorHead, RPNHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead, Shared2FCBBoxHead, Shared4Conv1FCBBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import Tensor, nn

from ..errors import UserError
from .boxes import check_nms, decode_boxes, gather_rows, select_candidates, suppress
from .graphs import Graph, not_exportable

EXPORTABLE = (  # modules of a two-stage detector
    *(RPNHead, StandardRoIHead, CascadeRoIHead, SingleRoIExtractor, FCNMaskHead),
    *(ConvFCBBoxHead, Shared2FCBBoxHead, Shared4Conv1FCBBoxHead),
)


class DenseDetectorGraph(Graph):
    """Detector with one dense head on anchors.

    The outputs have K = ``max_per_img`` slots, by descending score: boxes (B, K, 4) as x1, y1, x2, y2 in pixels of the
    input images, scores (B, K), labels (B, K). A slot without an object has score 0 and label -1.
    """

    outputs = ('boxes', 'scores', 'labels')

    def __init__(self, model: Any, dtype: torch.dtype):
        head, cfg = model.bbox_head, model.test_cfg
        methods = ('predict_by_feat', '_predict_by_feat_single', '_bbox_post_process')
        is_standard = all(getattr(type(head), name) is getattr(BaseDenseHead, name) for name in methods)
        if not isinstance(head, AnchorHead) or not is_standard:
            raise not_exportable(model, f'a {type(head).__name__}')
        check_nms(cfg.nms, 'model.test_cfg.nms')
        if cfg.get('nms_pre', -1) < 1 or cfg.get('min_bbox_size', 0) > 0:
            raise UserError('model.test_cfg cannot be exported; set nms_pre to 1 or more, and min_bbox_size to 0.')
        super().__init__(model, dtype)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        cfg, head, size = self.network.test_cfg, self.network.bbox_head, images.shape[-2:]
        maps = self.network.extract_feat(self.preprocessing(images))
        boxes, scores, labels, _ = select_candidates(head, maps, size, cfg.nms_pre, cfg.get('score_thr', 0.0))
        scores, index = suppress(boxes, scores, labels, cfg.nms, cfg.max_per_img, cfg.get('min_bbox_size', -1))
        return clear_empty_slots(gather_rows(boxes, index), scores, labels.gather(1, index))


def clear_empty_slots(boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Set box and score of slots without an object to 0, and their label to -1."""
    is_empty = scores < 0
    return torch.where(is_empty.unsqueeze(2), 0.0, boxes), scores.clamp(min=0.0), torch.where(is_empty, -1, labels)


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
        size, cfg = images.shape[-2:], self.network.test_cfg.rcnn
        maps = self.network.extract_feat(self.preprocessing(images))
        proposals, is_proposal = self.proposals(maps, size)
        boxes, scores = self.refine(maps, to_rois(proposals), size)
        batch, classes = images.shape[0], scores.shape[1]
        scores = torch.where(is_proposal.unsqueeze(2), scores.reshape(batch, -1, classes), -1.0).flatten(1)
        scores = torch.where(scores > cfg.score_thr, scores, -1.0)
        labels = torch.arange(classes).expand(proposals.shape[1], -1).flatten()
        boxes = boxes.reshape(batch, -1, 4)
        scores, index = suppress(boxes, scores, labels, cfg.nms, cfg.max_per_img)
        objects = clear_empty_slots(gather_rows(boxes, index), scores, labels[index])
        return (*objects, self.masks(maps, objects[0], objects[2])) if self.network.roi_head.with_mask else objects

    def proposals(self, maps: Sequence[Tensor], size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return proposals (B, max_per_img, 4), zeros in empty slots, and whether a slot holds one (B, max_per_img)."""
        cfg = self.network.test_cfg.rpn
        boxes, scores, _, levels = select_candidates(self.network.rpn_head, maps, size, cfg.nms_pre, -1.0)
        scores, index = suppress(boxes, scores, levels, cfg.nms, cfg.max_per_img, cfg.get('min_bbox_size', -1))
        is_proposal = scores >= 0
        return torch.where(is_proposal.unsqueeze(2), gather_rows(boxes, index), 0.0), is_proposal

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
                rois = torch.cat([rois[:, :1], decode_boxes(head.bbox_coder, rois[:, 1:], deltas.squeeze(1), size)], 1)
        scores = (sum(all_logits) / len(all_logits)).softmax(1)[:, :-1]
        deltas, boxes = (values.expand(-1, scores.shape[1], -1) for values in (deltas, rois[:, None, 1:]))
        boxes = decode_boxes(head.bbox_coder, boxes.reshape(-1, 4), deltas.reshape(-1, 4), size)
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
    modules = [model.rpn_head, roi_head, *extractors, *_stages(roi_head.bbox_head)]
    for module in modules + (_stages(roi_head.mask_head) if roi_head.with_mask else []):
        has_own_channels = getattr(getattr(module, 'loss_cls', None), 'custom_cls_channels', False)
        if type(module) not in EXPORTABLE or has_own_channels or not getattr(module, 'with_reg', True):
            raise not_exportable(model, type(module).__name__)
    for layer in (layer for extractor in extractors for layer in extractor.roi_layers):
        if type(layer).__name__ != 'RoIAlign' or not layer.aligned or layer.pool_mode != 'avg':
            raise not_exportable(model, str(layer))
    if roi_head.with_shared_head:
        raise not_exportable(model, 'a shared head')
    for stage in ('rpn', 'rcnn'):
        check_nms(cfg[stage].nms, f'model.test_cfg.{stage}.nms')
    if cfg.rpn.get('nms_pre', -1) < 1 or cfg.rcnn.get('max_per_img', -1) < 1:
        raise UserError('model.test_cfg cannot be exported; set rpn.nms_pre and rcnn.max_per_img to 1 or more.')


def _stages(module: Any) -> list[Any]:
    return list(module) if isinstance(module, nn.ModuleList) else [module]
