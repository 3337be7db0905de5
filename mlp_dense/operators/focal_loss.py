"""Focal losses (RetinaNet, https://arxiv.org/abs/1708.02002), computed at least in float32."""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import full_precision


def sigmoid_focal_loss(logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    """Return the loss (N, C) of logits (N, C) in their dtype.

    `target` (N,) is the class of each sample, or C for the background. `weight` (C,) contains weights of the samples by
    their class, or is empty. `gamma` reduces the loss of easy samples, and `alpha` is the weight of positive ones.
    """
    x = full_precision(logits)
    positive = F.one_hot(target, x.shape[1] + 1)[:, :-1].to(x.dtype)
    p, q = (side.sigmoid().clamp(min=torch.finfo(x.dtype).tiny) for side in (x, -x))  # 0**gamma has no finite slope
    loss = -alpha * positive * q**gamma * F.logsigmoid(x)
    loss = loss - (1 - alpha) * (1 - positive) * p**gamma * F.logsigmoid(-x)
    if len(weight):
        loss = loss * F.pad(weight, (0, 1), value=1)[target, None]
    return loss.to(logits.dtype)


def softmax_focal_loss(logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    """Return the loss (N,) of logits (N, C) in their dtype.

    `target` (N,) is the class of each sample. The loss of a negative class is 0. `weight` (C,) contains weights of the
    samples by their class, or is empty. `gamma` reduces the loss of easy samples, and `alpha` scales all losses.
    """
    x, classes = full_precision(logits), target.clamp(min=0)
    log_p = x.log_softmax(1).gather(1, classes[:, None]).squeeze(1)
    loss = -alpha * (1 - log_p.exp()).clamp(min=torch.finfo(x.dtype).tiny) ** gamma * log_p
    if len(weight):
        loss = loss * weight[classes]
    return loss.where(target >= 0, 0).to(logits.dtype)
