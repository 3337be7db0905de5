"""Classifiers that mmengine's Runner trains."""

from collections.abc import Mapping, Sequence
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
from ..timm.classifier import VisionMLP

TOP = 5
"""How many classes are predicted for an image, the likeliest first."""


@MODELS.register_module()
class ImageClassifier(BaseModel):
    """:class:`~mlp_dense.timm.VisionMLP` with what a training adds: erasing, Mixup and CutMix, and the loss.

    Args:
        backbone: as in a detector: ``type``, ``arch``, further arguments. An `init_cfg` may name a published
            classifier, a backbone or a training of this package, to fine-tune from.
        head: ``num_classes``; ``drop_rate`` of dropout before the last layer; the initial ``bias`` of the last layer.
        train_cfg: ``loss``, the ``type`` and arguments of a class in timm.loss; ``mixup``, the arguments of
            timm.data.Mixup; ``erasing``, those of timm's RandomErasing, which runs on normalized images.
        data_preprocessor: which normalizes the images.

    Raises:
        ArgumentError: there is no such loss.
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
        family, arch = MODELS.get(backbone.pop('type')), backbone.pop('arch')
        classes = head['num_classes']
        self.backbone = VisionMLP(family, arch, classes, drop_rate=head.get('drop_rate', 0.0), **backbone)
        if 'bias' in head:
            torch.nn.init.constant_(self.backbone.get_classifier().bias, head['bias'])
        loss = dict(train_cfg.get('loss') or dict(type='CrossEntropyLoss'))
        kind = loss.pop('type')
        cls = getattr(timm.loss, kind, None) or getattr(torch.nn, kind, None)
        if cls is None:
            raise ArgumentError(f'train_cfg.loss.type is {kind!r}; give a class of timm.loss or of torch.nn.')
        self.loss = cls(**loss)
        mixup, erasing = train_cfg.get('mixup'), train_cfg.get('erasing')
        self.mixup = Mixup(num_classes=classes, **mixup) if mixup else None
        self.erasing = RandomErasing(**erasing, device='cpu') if erasing else None
        self._register_load_state_dict_pre_hook(_name_the_backbone)

    def init_weights(self) -> None:
        super().init_weights()
        if self.pretrained:
            self.backbone.load_pretrained(self.pretrained)

    def forward(
        self, inputs: Tensor, data_samples: Sequence[BaseDataElement] | None = None, mode: str = 'tensor'
    ) -> Any:
        """Normalized images (B, 3, H, W) to logits (``tensor``), to a ``loss``, or to the data samples with what they
        show (``predict``): ``pred_class``, the `labels` of the five likeliest classes and the `probability` of each."""
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
        for sample, *found in zip(data_samples, labels, probability, strict=True):
            sample.pred_class = InstanceData(labels=found[0], probability=found[1])
        return data_samples


def _name_the_backbone(state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Published classifiers and those of timm know no whole model: what they hold is the backbone's."""
    if not any(key.startswith(f'{prefix}backbone.') for key in state_dict):
        for key in [key for key in state_dict if key.startswith(prefix)]:
            state_dict[f'{prefix}backbone.{key[len(prefix) :]}'] = state_dict.pop(key)
