"""RetinaNet, and other detectors of mmdet with one dense head on anchors, down to the detected objects."""

import torch
from mmdet.models.dense_heads import AnchorHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from torch import Tensor, nn

from ..errors import UserError
from .boxes import candidates, check_nms, not_suppressed, rows_of
from .graphs import Graph


class DenseDetectorGraph(Graph):
    """The detected objects of each image, by falling scores; as many places as ``max_per_img``, and where there is no
    object left a score of 0 and the label -1: boxes (B, K, 4), x1, y1, x2, y2 in pixels of the given images, scores
    (B, K), labels (B, K)."""

    outputs = ('boxes', 'scores', 'labels')

    def __init__(self, model: nn.Module, dtype: torch.dtype):
        head, cfg = model.bbox_head, model.test_cfg
        same = all(
            getattr(type(head), name) is getattr(BaseDenseHead, name)
            for name in ('predict_by_feat', '_predict_by_feat_single', '_bbox_post_process')
        )
        if not isinstance(head, AnchorHead) or not same:
            kind = type(model).__name__
            raise UserError(
                f'{kind} with a {type(head).__name__} cannot be exported whole; --part backbone or neck can.'
            )
        check_nms(cfg.nms, 'model.test_cfg.nms')
        if cfg.get('nms_pre', -1) < 1 or cfg.get('min_bbox_size', 0) > 0:
            raise UserError('model.test_cfg: an exported detector has nms_pre of 1 or more, and min_bbox_size=0.')
        super().__init__(model, dtype)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        cfg, size = self.network.test_cfg, images.shape[-2:]
        maps = self.network.extract_feat(self.preprocessing(images))
        found = candidates(self.network.bbox_head, maps, size, cfg.nms_pre, cfg.get('score_thr', 0.0))
        boxes, scores, labels, _ = found
        scores, index = not_suppressed(boxes, scores, labels, cfg.nms, cfg.max_per_img, cfg.get('min_bbox_size', -1))
        return objects(rows_of(boxes, index), scores, labels.gather(1, index))


def objects(boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same, with nothing in the places that hold no object."""
    none = scores < 0
    return torch.where(none.unsqueeze(2), 0.0, boxes), scores.clamp(min=0.0), torch.where(none, -1, labels)
