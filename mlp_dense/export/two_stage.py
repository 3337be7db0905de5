"""Faster, Mask and Cascade R-CNN of mmdet, down to the detected objects and their masks."""

from collections.abc import Iterator, Sequence

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead
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
        rpn, roi = model.rpn_head, model.roi_head
        kinds = [
            (type(rpn), (RPNHead,)),
            (type(roi), (StandardRoIHead, CascadeRoIHead)),
            *((type(head), (ConvFCBBoxHead, *ConvFCBBoxHead.__subclasses__())) for head in _stages(roi.bbox_head)),
            *((type(each), (SingleRoIExtractor,)) for each in _stages(roi.bbox_roi_extractor)),
            *((type(head), (FCNMaskHead,)) for head in (_stages(roi.mask_head) if roi.with_mask else ())),
        ]
        if others := [kind.__name__ for kind, known in kinds if kind not in known]:
            kind = type(model).__name__
            raise UserError(f'{kind} with {others[0]} cannot be exported whole; --part backbone or neck can.')
        for extractor in _stages(roi.bbox_roi_extractor):
            layers = extractor.roi_layers
            if not all(
                type(each).__name__ == 'RoIAlign' and each.aligned and each.pool_mode == 'avg' for each in layers
            ):
                raise UserError(f'{layers[0]} cannot be exported; only an aligned RoIAlign can.')
        cfg = model.test_cfg
        check_nms(cfg.rpn.nms, 'model.test_cfg.rpn.nms')
        check_nms(cfg.rcnn.nms, 'model.test_cfg.rcnn.nms')
        if cfg.rpn.get('nms_pre', -1) < 1 or cfg.rcnn.get('max_per_img', -1) < 1:
            raise UserError('model.test_cfg: an exported detector has rpn.nms_pre and rcnn.max_per_img of 1 or more.')
        self.outputs = ('boxes', 'scores', 'labels', *(('masks',) if roi.with_mask else ()))
        super().__init__(model, dtype)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        roi, cfg, size = self.network.roi_head, self.network.test_cfg.rcnn, images.shape[-2:]
        maps = self.network.extract_feat(self.preprocessing(images))
        rois = with_image(self.proposals(maps, size), images.shape[0])
        total = 0.0
        stages = list(zip(_stages(roi.bbox_head), _stages(roi.bbox_roi_extractor), strict=True))
        for i, (head, extractor) in enumerate(stages):
            logits, deltas = (each.float() for each in head(pooled(extractor, maps, rois)))
            total = total + logits
            if i < len(stages) - 1:
                if not head.reg_class_agnostic:
                    label = logits[:, :-1].argmax(1, keepdim=True)
                    deltas = rows_of(deltas.unflatten(1, (-1, 4)), label).squeeze(1)
                rois = torch.cat([rois[:, :1], decoded(head.bbox_coder, rois[:, 1:], deltas, size)], 1)
        scores = (total / len(stages)).softmax(1)[:, :-1]
        classes = scores.shape[1]
        deltas = deltas.unflatten(1, (-1, 4)).expand(-1, classes, -1)
        boxes = rois[:, None, 1:].expand(-1, classes, -1)
        boxes = decoded(head.bbox_coder, boxes.reshape(-1, 4), deltas.reshape(-1, 4), size)
        boxes, scores = (each.reshape(images.shape[0], -1, *rest) for each, rest in ((boxes, (4,)), (scores, ())))
        labels = torch.arange(classes).expand(self.network.test_cfg.rpn.max_per_img, -1).flatten()
        scores = torch.where(self.is_box.unsqueeze(2).expand(-1, -1, classes).flatten(1), scores, -1.0)
        scores = torch.where(scores > cfg.score_thr, scores, -1.0)
        scores, index = not_suppressed(boxes, scores, labels, cfg.nms, cfg.max_per_img)
        found = objects(rows_of(boxes, index), scores, labels[index])
        return (*found, self.masks(maps, found[0], found[2])) if roi.with_mask else found

    def proposals(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """(B, max_per_img, 4); what is none has no extent."""
        cfg = self.network.test_cfg.rpn
        boxes, scores, _, levels = candidates(self.network.rpn_head, maps, size, cfg.nms_pre, -1.0)
        scores, index = not_suppressed(boxes, scores, levels, cfg.nms, cfg.max_per_img, cfg.get('min_bbox_size', -1))
        self.is_box = scores >= 0
        return torch.where(self.is_box.unsqueeze(2), rows_of(boxes, index), 0.0)

    def masks(self, maps: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        roi, rois, total = self.network.roi_head, with_image(boxes, boxes.shape[0]), 0.0
        heads = list(zip(_stages(roi.mask_head), _stages(roi.mask_roi_extractor), strict=True))
        for head, extractor in heads:
            masks = head(pooled(extractor, maps, rois)).float().sigmoid()
            if not head.class_agnostic:
                index = labels.clamp(min=0).reshape(-1, 1, 1, 1).expand(-1, 1, *masks.shape[2:])
                masks = masks.gather(1, index)
            total = total + masks
        return (total / len(heads)).reshape(*labels.shape, *masks.shape[2:])


def with_image(boxes: Tensor, batch: int) -> Tensor:
    """(B, N, 4) boxes to (B * N, 5), each with the index of its image first."""
    index = torch.arange(batch, dtype=boxes.dtype)[:, None, None].expand(-1, boxes.shape[1], 1)
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


def _stages(part: nn.Module) -> Iterator[nn.Module]:
    return iter(part if isinstance(part, nn.ModuleList) else [part])
