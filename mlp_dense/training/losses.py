"""Fix of mmsegmentation's weighted cross-entropy for label maps with ignored pixels."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..registry import MODELS


@MODELS.register_module()
class WeightedCrossEntropyLoss(nn.Module):
    """A cross-entropy with class weights: the weighted mean over the pixels that are not ignored.

    ``CrossEntropyLoss(class_weight=...)`` of mmseg 1.2.2 fails if a label map has an ignored pixel, because it looks up
    the weight of the ignored label. `loss_name` is the name in the log, which must begin with ``loss_``.
    """

    class_weight: Tensor

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
        """Return the loss of scores (B, classes, H, W) and labels (B, H, W), with weights (B, H, W) of a pixel sampler.

        ``reduction_override='none'`` returns the losses of all pixels (B, H, W), which pixel samplers need.
        """
        class_weight = self.class_weight.float()  # the sum over all pixels overflows 16 bits
        losses = F.cross_entropy(scores.float(), labels, class_weight, ignore_index=ignore_index, reduction='none')
        losses = losses if weight is None else losses * weight
        if reduction_override == 'none':
            return self.loss_weight * losses
        total = class_weight[labels[labels != ignore_index]].sum().clamp(min=torch.finfo(losses.dtype).eps)
        return self.loss_weight * losses.sum() / total  # 0 if all pixels are ignored
