"""Sigmoid focal loss (RetinaNet, https://arxiv.org/abs/1708.02002, section 3)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid_focal_loss(logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    """Return the loss (N, C) of logits (N, C) in their dtype, computed at least in float32.

    `target` (N,) is the class of each sample, or C for the background. `weight` (C,) contains weights of the samples by
    their class, or is empty. `gamma` reduces the loss of easy samples, and `alpha` is the weight of positive ones.
    """
    x = logits if logits.dtype == torch.float64 else logits.float()
    positive = F.one_hot(target, x.shape[1] + 1)[:, :-1].to(x.dtype)
    p = x.sigmoid()
    loss = -alpha * positive * (1 - p) ** gamma * F.logsigmoid(x)
    loss = loss - (1 - alpha) * (1 - positive) * p**gamma * F.logsigmoid(-x)
    if len(weight):
        loss = loss * F.pad(weight, (0, 1), value=1)[target, None]
    return loss.to(logits.dtype)
