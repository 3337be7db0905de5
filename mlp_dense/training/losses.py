"""Losses of segmentors."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..registry import MODELS


@MODELS.register_module()
class WeightedCrossEntropyLoss(nn.Module):
    """Cross-entropy with a weight for each class: the mean over the pixels that are not ignored, by their weights.

    mmseg 1.2.2's ``CrossEntropyLoss(class_weight=...)`` fails as soon as a label map has an ignored pixel, whose label
    it looks up among the weights.

    Args:
        class_weight: a weight for each class.
        loss_weight: what the loss is multiplied by.
        loss_name: its name in the log, which begins with ``loss_``.
    """

    def __init__(self, class_weight: Sequence[float], loss_weight: float = 1.0, loss_name: str = 'loss_ce'):
        super().__init__()
        self.register_buffer('class_weight', torch.tensor(class_weight, dtype=torch.float32), persistent=False)
        self.loss_weight, self.loss_name = loss_weight, loss_name

    def forward(
        self,
        scores: Tensor,
        labels: Tensor,
        weight: Tensor | None = None,
        ignore_index: int = 255,
        reduction_override: str | None = None,
        **_: Any,
    ) -> Tensor:
        """Of scores (B, classes, H, W) and labels (B, H, W), with `weight` (B, H, W) of a pixel sampler, if any;
        `reduction_override='none'` gives the losses of all pixels (B, H, W), which a sampler may ask for."""
        class_weight = self.class_weight.float()  # a sum over all pixels is too large for 16 bits
        losses = F.cross_entropy(scores.float(), labels, class_weight, ignore_index=ignore_index, reduction='none')
        losses = losses if weight is None else losses * weight
        if reduction_override == 'none':
            return self.loss_weight * losses
        total = class_weight[labels[labels != ignore_index]].sum()
        return self.loss_weight * losses.sum() / total.clamp(min=torch.finfo(losses.dtype).eps)  # of no pixel: 0
