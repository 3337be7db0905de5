"""Faster, Mask and Cascade R-CNN of mmdet, down to the detected objects and their masks."""

from collections.abc import Iterator, Sequence

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead, Shared2FCBBoxHead, Shared4Conv1FCBBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import Tensor, nn

from ..errors import UserError
from .boxes import candidates, check_nms, decoded, not_suppressed, rows_of
from .dense_detector import objects
from .graphs import Graph


class TwoStageGraph(Graph):
    """As :class:`~.dense_detector.DenseDetectorGraph`, and with a mask head masks (B, K, 28, 28), the probability that
    a part of the box belongs to the object. Each image has ``max_per_img`` proposals, also where fewer were found."""

    def __init__(self, model: nn.Module, dtype: torch.dtype):
        _check(model)
        self.outputs = ('boxes', 'scores', 'labels', *(('masks',) if model.roi_head.with_mask else ()))
        super().__init__(model, dtype)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        size, cfg = images.shape[-2:], self.network.test_cfg.rcnn
        maps = self.network.extract_feat(self.preprocessing(images))
        proposals, is_box = self.proposals(maps, size)
        boxes, scores = self.refined(maps, with_image(proposals), size)
        batch, classes = images.shape[0], scores.shape[1]
        scores = torch.where(is_box.unsqueeze(2), scores.reshape(batch, -1, classes), -1.0).flatten(1)
        scores = torch.where(scores > cfg.score_thr, scores, -1.0)
        labels = torch.arange(classes).expand(proposals.shape[1], -1).flatten()
        boxes = boxes.reshape(batch, -1, 4)
        scores, index = not_suppressed(boxes, scores, labels, cfg.nms, cfg.max_per_img)
        found = objects(rows_of(boxes, index), scores, labels[index])
        return (*found, self.masks(maps, found[0], found[2])) if self.network.roi_head.with_mask else found

    def proposals(self, maps: Sequence[Tensor], size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(B, max_per_img, 4), and whether each is one (B, max_per_img); what is none has no extent."""
        cfg = self.network.test_cfg.rpn
        boxes, scores, _, levels = candidates(self.network.rpn_head, maps, size, cfg.nms_pre, -1.0)
        scores, index = not_suppressed(boxes, scores, levels, cfg.nms, cfg.max_per_img, cfg.get('min_bbox_size', -1))
        is_box = scores >= 0
        return torch.where(is_box.unsqueeze(2), rows_of(boxes, index), 0.0), is_box

    def refined(self, maps: Sequence[Tensor], rois: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A box for each proposal (N, 5) and class, (N, classes, 4), and their scores (N, classes), after one stage or
        those of a cascade."""
        roi, total = self.network.roi_head, 0.0
        stages = list(zip(_stages(roi.bbox_head), _stages(roi.bbox_roi_extractor), strict=True))
        for head, extractor in stages:
            logits, deltas = (each.float() for each in head(pooled(extractor, maps, rois)))
            deltas, total = deltas.unflatten(1, (-1, 4)), total + logits
            if head is not stages[-1][0]:  # the next one starts from the box of the likeliest class
                if not head.reg_class_agnostic:
                    deltas = rows_of(deltas, logits[:, :-1].argmax(1, keepdim=True))
                rois = torch.cat([rois[:, :1], decoded(head.bbox_coder, rois[:, 1:], deltas.squeeze(1), size)], 1)
        scores = (total / len(stages)).softmax(1)[:, :-1]
        deltas, boxes = (each.expand(-1, scores.shape[1], -1) for each in (deltas, rois[:, None, 1:]))
        boxes = decoded(head.bbox_coder, boxes.reshape(-1, 4), deltas.reshape(-1, 4), size)
        return boxes.unflatten(0, (-1, scores.shape[1])), scores

    def masks(self, maps: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        roi, rois, total = self.network.roi_head, with_image(boxes), 0.0
        heads = list(zip(_stages(roi.mask_head), _stages(roi.mask_roi_extractor), strict=True))
        for head, extractor in heads:
            masks = head(pooled(extractor, maps, rois)).float().sigmoid()
            if not head.class_agnostic:
                index = labels.clamp(min=0).reshape(-1, 1, 1, 1).expand(-1, 1, *masks.shape[2:])
                masks = masks.gather(1, index)
            total = total + masks
        return (total / len(heads)).reshape(*labels.shape, *masks.shape[2:])


def with_image(boxes: Tensor) -> Tensor:
    """(B, N, 4) boxes to (B * N, 5), each with the index of its image first."""
    index = torch.arange(boxes.shape[0], dtype=boxes.dtype)[:, None, None].expand(-1, boxes.shape[1], 1)
    return torch.cat([index, boxes], 2).flatten(0, 1)


def pooled(extractor: nn.Module, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
    """(N, C, h, w), each box from the level that suits its size."""
    layers = list(extractor.roi_layers)
    maps = list(maps[: len(layers)])
    levels = extractor.map_roi_levels(rois, len(layers))
    scales = [float(layer.spatial_scale) for layer in layers]
    ratio, size = int(layers[0].sampling_ratio), list(layers[0].output_size)
    found = torch.ops.mlp_dense.roi_align_levels.default(
        [each.float() for each in maps], rois, levels, size, scales, ratio
    )
    return found.to(maps[0].dtype)


def _check(model: nn.Module) -> None:
    """UserError: a part of the model is of another kind than those that this module computes."""
    rpn, roi, cfg = model.rpn_head, model.roi_head, model.test_cfg
    known = {
        RPNHead: [rpn],
        StandardRoIHead: [roi],
        ConvFCBBoxHead: _stages(roi.bbox_head),
        SingleRoIExtractor: _stages(roi.bbox_roi_extractor),
    }
    known |= {FCNMaskHead: _stages(roi.mask_head)} if roi.with_mask else {}
    also = {StandardRoIHead: (CascadeRoIHead,), ConvFCBBoxHead: (Shared2FCBBoxHead, Shared4Conv1FCBBoxHead)}
    for kind, parts in known.items():
        for part in parts:
            plain = not getattr(getattr(part, 'loss_cls', None), 'custom_cls_channels', False)
            if type(part) not in (kind, *also.get(kind, ())) or not plain or not getattr(part, 'with_reg', True):
                raise _refused(model, type(part).__name__)
    for layer in (layer for each in _stages(roi.bbox_roi_extractor) for layer in each.roi_layers):
        if type(layer).__name__ != 'RoIAlign' or not layer.aligned or layer.pool_mode != 'avg':
            raise _refused(model, str(layer))
    if roi.with_shared_head:
        raise _refused(model, 'a shared head')
    for part in ('rpn', 'rcnn'):
        check_nms(cfg[part].nms, f'model.test_cfg.{part}.nms')
    if cfg.rpn.get('nms_pre', -1) < 1 or cfg.rcnn.get('max_per_img', -1) < 1:
        raise UserError('model.test_cfg: an exported detector has rpn.nms_pre and rcnn.max_per_img of 1 or more.')


def _refused(model: nn.Module, what: str) -> UserError:
    return UserError(f'{type(model).__name__} with {what} cannot be exported whole; --part backbone or neck can.')


def _stages(part: nn.Module) -> Iterator[nn.Module]:
    return iter(part if isinstance(part, nn.ModuleList) else [part])
