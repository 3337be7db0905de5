"""How many images are classified right, in all and of each class."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from ..registry import METRICS


@METRICS.register_module()
class Accuracy(BaseMetric):
    """The percentage of images whose class is the likeliest (``accuracy/top1``), or, where there are more than five
    classes, among the five likeliest (``accuracy/top5``)."""

    default_prefix = 'accuracy'

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        self.results += [_record(sample) for sample in data_samples]

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        return percentages(results, len(self.dataset_meta['classes']))


@METRICS.register_module()
class DumpClasses(Accuracy):
    """Writes what was predicted as JSON: ``classes``, by name the number of `images` and how many percent of them are
    right; ``images``, for each its `file`, its `class`, and the likeliest classes with their probabilities."""

    def __init__(self, out_file_path: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.file = Path(out_file_path)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        names = self.dataset_meta['classes']
        classes = {}
        for label, name in enumerate(names):
            own = [record for record in results if record['label'] == label]
            classes[name] = dict(images=len(own), **(percentages(own, len(names)) if own else {}))
        images = [
            {
                'file': record['file'],
                'class': names[record['label']],
                'predicted': {
                    names[i]: round(p, 6) for i, p in zip(record['found'], record['probability'], strict=True)
                },
            }
            for record in results
        ]
        self.file.write_text(json.dumps(dict(classes=classes, images=images), indent=1) + '\n', encoding='utf-8')
        return {}


def percentages(results: Sequence[dict], classes: int) -> dict[str, float]:
    """Of the images whose class is the first, or one of the first five, of those that were found."""
    right = {
        f'top{k}': 100 * float(np.mean([record['label'] in record['found'][:k] for record in results]))
        for k in (1, 5)
        if k < classes
    }
    return right


def _record(sample: dict) -> dict[str, Any]:
    found = sample['pred_class']
    return dict(
        file=sample.get('img_path'),
        label=int(sample['gt_class']['labels'][0]),
        found=found['labels'].tolist(),
        probability=found['probability'].tolist(),
    )
