"""Fix of mmdet's CocoMetric for a test without detections."""

from typing import Any

from mmdet.evaluation import CocoMetric as _CocoMetric
from mmengine.logging import print_log

from ..registry import METRICS

ITEMS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')


@METRICS.register_module()
class CocoMetric(_CocoMetric):
    """A CocoMetric of mmdet whose metrics are 0 instead of absent if nothing was detected in any image."""

    def compute_metrics(self, results: list) -> dict[str, Any]:
        metrics = super().compute_metrics(results)
        if not metrics and not self.format_only:
            print_log('Nothing was detected in any image: all metrics are 0.', logger='current')
            types = [name for name in self.metrics if name in ('bbox', 'segm')]
            return {f'{name}_{item}': 0.0 for name in types for item in self.metric_items or ITEMS}
        return metrics
