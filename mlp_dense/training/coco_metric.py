"""COCO's metrics of a test in which nothing is found."""

from typing import Any

from mmdet.evaluation import CocoMetric as _CocoMetric
from mmengine.logging import print_log

from ..registry import METRICS

ITEMS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')


@METRICS.register_module()
class CocoMetric(_CocoMetric):
    """mmdet's CocoMetric, whose metrics are 0, instead of absent, when nothing was detected in any image."""

    def compute_metrics(self, results: list) -> dict[str, Any]:
        found = super().compute_metrics(results)
        if not found and not self.format_only:
            print_log('Nothing was detected in any image: all metrics are 0.', logger='current')
            kinds = [kind for kind in self.metrics if kind in ('bbox', 'segm')]
            found = {f'{kind}_{item}': 0.0 for kind in kinds for item in self.metric_items or ITEMS}
        return found
