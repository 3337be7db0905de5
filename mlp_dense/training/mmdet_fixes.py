"""Fixes of mmdet: metrics for annotations with any ids or without detections, masks in TTA, images of any bands."""

from typing import Any

from mmcv.ops import batched_nms
from mmdet.evaluation import CocoMetric as _CocoMetric
from mmdet.models.data_preprocessors import DetDataPreprocessor as _DetDataPreprocessor
from mmdet.models.test_time_augs import DetTTAModel
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.logging import print_log

from ..registry import METRICS, MODELS
from .normalization import AnyBands


@METRICS.register_module()
class CocoMetric(_CocoMetric):
    """A CocoMetric of mmdet for annotations with any ids; without any detection its metrics are 0 instead of absent."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self._coco_api is not None:  # COCOeval mistakes the id 0 for `no match`, and merges annotations of one id
            for number, annotation in enumerate(self._coco_api.dataset.get('annotations', ()), start=1):
                annotation['id'] = number
            self._coco_api.createIndex()

    def compute_metrics(self, results: list) -> dict[str, Any]:
        metrics = super().compute_metrics(results)
        if not metrics and not self.format_only:
            print_log('Nothing was detected in any image: all metrics are 0.', logger='current')
            types = [name for name in self.metrics if name in ('bbox', 'segm')]
            items = self.metric_items or ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
            return {f'{name}_{item}': 0.0 for name in types for item in items}
        return metrics


@MODELS.register_module()
class DetDataPreprocessor(AnyBands, _DetDataPreprocessor):
    """A DetDataPreprocessor of mmdet for images of any number of bands."""


@MODELS.register_module()
class InstanceTTAModel(DetTTAModel):
    """A DetTTAModel of mmdet that merges masks as well as boxes from several views (sizes, flips) of an image.

    A box that survives the suppression among all views keeps its mask.
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
