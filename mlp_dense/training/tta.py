"""Test-time augmentation for detectors with masks."""

from mmcv.ops import batched_nms
from mmdet.models.test_time_augs import DetTTAModel
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict

from ..registry import MODELS


@MODELS.register_module()
class InstanceTTAModel(DetTTAModel):
    """A DetTTAModel of mmdet that merges masks as well as boxes from several views (sizes, flips) of an image.

    A box that survives the suppression among all views keeps its mask. ``nms`` and ``max_per_img`` are those of the
    ``test_cfg`` of a detector.
    """

    def __init__(self, nms: dict, max_per_img: int, **kwargs):
        super().__init__(tta_cfg=ConfigDict(nms=nms, max_per_img=max_per_img), **kwargs)

    def _merge_single_sample(self, data_samples: list[DetDataSample]) -> DetDataSample:
        views = [sample.pred_instances for sample in data_samples]
        for sample, view in zip(data_samples, views, strict=True):
            if 'masks' in view and sample.flip:
                axes = {'horizontal': (-1,), 'vertical': (-2,), 'diagonal': (-2, -1)}[sample.flip_direction]
                view.masks = view.masks.flip(axes)
        boxes, scores = self.merge_aug_bboxes(
            [view.bboxes for view in views], [view.scores for view in views], [s.metainfo for s in data_samples]
        )
        merged = views[0].cat(views)
        merged.bboxes = boxes
        if len(merged):
            suppressed, keep = batched_nms(boxes, scores, merged.labels, self.tta_cfg.nms)
            merged = merged[keep[: self.tta_cfg.max_per_img]]
            merged.scores = suppressed[: self.tta_cfg.max_per_img, -1]
        data_samples[0].pred_instances = merged
        return data_samples[0]
