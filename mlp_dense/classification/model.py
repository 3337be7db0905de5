"""Image classifier that mmengine's Runner trains, its learning rate and its accuracy."""

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import timm.loss
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.model import ImgDataPreprocessor as _ImgDataPreprocessor
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.structures import BaseDataElement, InstanceData
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from timm.scheduler import CosineLRScheduler
from torch import Tensor
from torch.nn import functional

from ..errors import UserError
from ..registry import METRICS, MODELS, PARAM_SCHEDULERS
from ..timm import VisionMLP, add_prefix
from ..training.normalization import AnyBands

TOP = 5  # number of classes that are predicted for an image, by descending probability


@MODELS.register_module()
class ImgDataPreprocessor(AnyBands, _ImgDataPreprocessor):
    """An ImgDataPreprocessor of mmengine for images of any number of bands."""


@MODELS.register_module()
class ImageClassifier(BaseModel):
    """:class:`~mlp_dense.timm.VisionMLP` with the loss, Mixup, CutMix and random erasing of a training run.

    Args:
        backbone: ``type``, ``arch``, ``in_channels`` and other arguments, as in a detector. An `init_cfg` may name a
            published classifier, a backbone or a training run of this package, from which to fine-tune.
        head: ``num_classes``; ``drop_rate``, the dropout rate before the last layer; ``bias``, its initial bias.
        train_cfg: ``loss``, the ``type`` and arguments of a class in timm.loss or torch.nn; ``mixup``, the arguments of
            timm.data.Mixup; ``erasing``, those of timm's RandomErasing, which is applied to normalized images.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        head: Mapping[str, Any],
        train_cfg: Mapping[str, Any] | None = None,
        data_preprocessor: Mapping[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
    ):
        super().__init__(data_preprocessor)
        backbone, train_cfg = dict(backbone), train_cfg or {}
        self.pretrained = (backbone.pop('init_cfg', None) or {}).get('checkpoint')
        family: Any = MODELS.get(backbone.pop('type'))
        classes = head['num_classes']
        fixed = dict(num_classes=classes, in_chans=backbone.pop('in_channels', 3), drop_rate=head.get('drop_rate', 0.0))
        self.backbone = VisionMLP(family, **fixed, **backbone)
        if 'bias' in head:
            torch.nn.init.constant_(self.backbone.get_classifier().get_parameter('bias'), head['bias'])
        loss = dict(train_cfg.get('loss') or dict(type='CrossEntropyLoss'))
        loss_type = loss.pop('type')
        loss_class = getattr(timm.loss, loss_type, None) or getattr(torch.nn, loss_type, None)
        if loss_class is None:
            close = get_close_matches(loss_type, [*dir(timm.loss), *dir(torch.nn)], 1)
            hint = f'; did you mean {close[0]}?' if close else '.'
            raise UserError(f'train_cfg.loss.type: timm.loss and torch.nn have no {loss_type}{hint}')
        self.loss = loss_class(**loss)
        mixup, erasing = train_cfg.get('mixup'), train_cfg.get('erasing')
        self.mixup = Mixup(num_classes=classes, **mixup) if mixup else None
        self.erasing = RandomErasing(**erasing, device='cpu') if erasing else None
        self.register_load_state_dict_pre_hook(partial(add_prefix, 'backbone.'))

    def init_weights(self) -> None:
        super().init_weights()
        if self.pretrained:
            self.backbone.load_pretrained(self.pretrained)

    def forward(self, inputs: Tensor, data_samples: Sequence[BaseDataElement] = (), mode: str = 'tensor') -> Any:
        """Return logits (mode ``tensor``), a ``loss``, or predictions (``predict``) for normalized images (B, C, H, W).

        Predictions are the data samples with ``pred_class``: the `labels` of the first classes and their `probability`.
        """
        if mode == 'loss':
            targets = torch.cat([sample.gt_class.labels for sample in data_samples])
            if self.erasing:
                self.erasing.device = inputs.device
                inputs = self.erasing(inputs)
            if self.mixup and len(inputs) % 2:
                raise UserError(f'Mixup needs an even number of images, not {len(inputs)}: change batch_size.')
            if self.mixup:
                inputs, targets = self.mixup(inputs, targets)
            elif isinstance(self.loss, timm.loss.SoftTargetCrossEntropy):
                targets = functional.one_hot(targets, self.backbone.num_classes).to(inputs.dtype)
            return dict(loss=self.loss(self.backbone(inputs), targets))
        logits = self.backbone(inputs)
        if mode == 'tensor':
            return logits
        probability, labels = logits.float().softmax(1).topk(min(TOP, logits.shape[1]))
        for sample, first, values in zip(data_samples, labels, probability, strict=True):
            sample.pred_class = InstanceData(labels=first, probability=values)
        return data_samples


@PARAM_SCHEDULERS.register_module()
class CosineLR(LRSchedulerMixin, _ParamScheduler):
    """timm's CosineLRScheduler: a cosine over the complete training run, whose beginning a linear warm-up replaces.

    mmengine's own cosine would begin after the warm-up. The rate starts at `warmup_lr`, and is `lr_min` after `length`
    epochs, or iterations if not `by_epoch`.
    """

    def __init__(
        self, optimizer: Any, *args: Any, length: int, lr_min: float, warmup: int, warmup_lr: float, **kwargs: Any
    ):
        self.settings = dict(t_initial=length, lr_min=lr_min, warmup_t=warmup, warmup_lr_init=warmup_lr)
        super().__init__(optimizer, *args, **kwargs)

    @classmethod
    def build_iter_from_epoch(cls, *args: Any, epoch_length: int, by_epoch: bool = True, **kwargs: Any) -> 'CosineLR':
        """Build a schedule that steps in every iteration from settings in epochs of `epoch_length` iterations."""
        in_epochs = [key for key in ('begin', 'end', 'length', 'warmup') if key in kwargs]
        kwargs |= {key: kwargs[key] * epoch_length for key in in_epochs}
        return cls(*args, by_epoch=False, **kwargs)

    def _get_value(self) -> list[float]:
        # copies, since the constructor changes the rates
        optimizer: Any = SimpleNamespace(param_groups=[dict(group) for group in self.optimizer.param_groups])
        return CosineLRScheduler(optimizer, initialize=False, **self.settings)._get_lr(self.last_step)


@METRICS.register_module()
class Accuracy(BaseMetric):
    """Percentage of images whose class is the first (``accuracy/top1``), and with more than five classes among five."""

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
