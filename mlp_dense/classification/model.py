"""Image classifier that mmengine's Runner trains."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import timm.loss
import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement, InstanceData
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torch.nn import functional

from ..errors import ArgumentError, UserError
from ..registry import MODELS
from ..timm.classifier import VisionMLP, add_prefix

TOP = 5
"""Number of classes that are predicted for an image, by descending probability."""


@MODELS.register_module()
class ImageClassifier(BaseModel):
    """:class:`~mlp_dense.timm.VisionMLP` with the loss, Mixup, CutMix and random erasing of a training.

    Args:
        backbone: ``type``, ``arch`` and other arguments, as in a detector. An `init_cfg` may name a published
            classifier, a backbone or a training of this package, from which to fine-tune.
        head: ``num_classes``; ``drop_rate``, the dropout rate before the last layer; ``bias``, its initial bias.
        train_cfg: ``loss``, the ``type`` and arguments of a class in timm.loss; ``mixup``, the arguments of
            timm.data.Mixup; ``erasing``, those of timm's RandomErasing, which is applied to normalized images.
        data_preprocessor: Config of the preprocessor that normalizes the images.
        test_cfg: Unused.
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
        self.backbone = VisionMLP(family, num_classes=classes, drop_rate=head.get('drop_rate', 0.0), **backbone)
        if 'bias' in head:
            torch.nn.init.constant_(self.backbone.get_classifier().get_parameter('bias'), head['bias'])
        loss = dict(train_cfg.get('loss') or dict(type='CrossEntropyLoss'))
        loss_type = loss.pop('type')
        loss_class = getattr(timm.loss, loss_type, None) or getattr(torch.nn, loss_type, None)
        if loss_class is None:
            raise ArgumentError(f'train_cfg.loss.type is {loss_type!r}; use a class of timm.loss or of torch.nn.')
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
        """Return logits (mode ``tensor``), a ``loss``, or predictions (``predict``) for normalized images (B, 3, H, W).

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
