"""Fixes of mmdet: repair of annotation files, metrics without detections, masks in TTA, images of any bands."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from operator import itemgetter
from pathlib import Path
from typing import Any

from mmcv.ops import batched_nms
from mmdet.datasets import CocoDataset as _CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric as _CocoMetric
from mmdet.models.data_preprocessors import DetDataPreprocessor as _DetDataPreprocessor
from mmdet.models.test_time_augs import DetTTAModel
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.fileio import get_local_path
from mmengine.logging import print_log

from ..datasets.annotations import repair
from ..datasets.coco import read_coco
from ..registry import DATASETS, METRICS, MODELS
from .normalization import AnyBands


class RepairedCOCO(COCO):
    """COCO of mmdet, an index of an annotation file whose annotations are repaired."""

    def __init__(self, file: str, crowds: str, masks: bool, classes: Sequence[str] | None = None):
        with redirect_stdout(StringIO()):
            super().__init__()
            self.dataset = read_coco(Path(file))
            self.repaired = repair(self.dataset, classes, masks, crowds)
            self.index()

    def index(self) -> None:
        """Index the annotations, also under the names of mmdet."""
        self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs


@DATASETS.register_module()
class CocoDataset(_CocoDataset):
    """A CocoDataset of mmdet that repairs what it can in the annotation file, and keeps the list of the problems.

    `crowds` is ``'ignored'``, or ``'as-objects'`` to learn objects with ``iscrowd=1``.
    """

    def __init__(self, *args: Any, crowds: str = 'ignored', **kwargs: Any):
        self.crowds = crowds
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict]:
        masks = any(getattr(transform, 'with_mask', False) for transform in self.pipeline.transforms)
        classes = self.metainfo.get('classes')
        with get_local_path(self.ann_file, backend_args=self.backend_args) as file:
            coco = RepairedCOCO(file, self.crowds, masks, classes)
        self.repaired, self.COCOAPI = coco.repaired, lambda _: coco
        try:
            return super().load_data_list()
        finally:
            del self.COCOAPI


@METRICS.register_module()
class CocoMetric(_CocoMetric):
    """A CocoMetric of mmdet for annotations with any ids; without any detection its metrics are 0 instead of absent.

    pycocotools prints nothing. `crowds` is that of :class:`CocoDataset`.
    """

    def __init__(
        self, ann_file: str | None = None, *args: Any, crowds: str = 'ignored', sort_categories: bool = False,
        **kwargs: Any,
    ):  # fmt: skip
        super().__init__(None, *args, **kwargs)
        if ann_file is not None:
            with get_local_path(ann_file, backend_args=self.backend_args) as file:
                self._coco_api = RepairedCOCO(file, crowds, 'segm' in self.metrics)
            if sort_categories:
                self._coco_api.dataset['categories'].sort(key=itemgetter('id'))
                self._coco_api.index()

    def compute_metrics(self, results: list) -> dict[str, Any]:
        with redirect_stdout(StringIO()):  # pycocotools prints 20 lines; the metrics are logged
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
