"""Accuracy of image classification, overall and per class."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from ..registry import METRICS


@METRICS.register_module()
class Accuracy(BaseMetric):
    """Percentage of images whose class is the first (``accuracy/top1``) or among the first five (``accuracy/top5``).

    ``accuracy/top5`` exists if there are more than five classes.
    """

    default_prefix = 'accuracy'

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            predicted = sample['pred_class']
            record = dict(file=sample.get('img_path'), label=int(sample['gt_class']['labels'][0]))
            record |= dict(predicted=predicted['labels'].tolist(), probability=predicted['probability'].tolist())
            self.results.append(record)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        return percentages(results, len(self.dataset_meta['classes']))


@METRICS.register_module()
class DumpClasses(Accuracy):
    """JSON file with the predictions.

    ``classes`` contains for each name the number of `images` and the percentage of correct ones. ``images`` contains
    for each image its `file`, its `class`, and the first classes with their probabilities.
    """

    def __init__(self, out_file_path: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.file = Path(out_file_path)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        names = self.dataset_meta['classes']
        classes = {}
        for label, name in enumerate(names):
            records = [record for record in results if record['label'] == label]
            classes[name] = dict(images=len(records), **(percentages(records, len(names)) if records else {}))
        images = []
        for record in results:
            probabilities = zip(record['predicted'], record['probability'], strict=True)
            predicted = {names[label]: round(probability, 6) for label, probability in probabilities}
            images.append({'file': record['file'], 'class': names[record['label']], 'predicted': predicted})
        self.file.write_text(json.dumps(dict(classes=classes, images=images), indent=1) + '\n', encoding='utf-8')
        return {}


def percentages(results: Sequence[dict], classes: int) -> dict[str, float]:
    """Return the percentages of images whose class is the first, or among the first five, of those predicted."""
    return {
        f'top{k}': 100 * float(np.mean([record['label'] in record['predicted'][:k] for record in results]))
        for k in (1, 5)
        if k < classes
    }
