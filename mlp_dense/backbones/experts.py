"""Mixtures of experts: a router sends every item to a few of several MLPs (V-MoE, arXiv 2106.05974)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from ..errors import UserError
from ..kernels.compat import precise_linear
from ..kernels.expert_mixing import mix_experts

BALANCE_WEIGHT = 0.01


class Router(nn.Linear):
    """Logits of the experts, in float32 at least, because a rounded logit would choose another expert."""

    def forward(self, x: Tensor) -> Tensor:
        return precise_linear(x, self.weight, self.bias)


class ExpertLinear(nn.Module):
    """The parameters of a linear layer for each of several experts."""

    def __init__(self, num_experts: int, in_dim: int, out_dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_experts, out_dim, in_dim))
        self.bias = nn.Parameter(torch.empty(num_experts, out_dim))
        for weight in self.weight:
            nn.init.xavier_uniform_(weight)
        nn.init.normal_(self.bias, std=1e-6)


class Experts(nn.Module):
    """Maps items (..., dim) by `num_chosen` of `num_experts` MLPs each, and sums the results, weighted by a router.

    In training the router's logits are noisy, and the gradient of a balancing loss is added (V-MoE, appendix A).

    Attributes:
        balance: the last value of the balancing loss.
        shares: (num_experts), the fraction of the items that each expert received.
    """

    balance: Tensor
    shares: Tensor
    loss_scale: Tensor

    def __init__(self, dim: int, hidden_dim: int, num_experts: int, num_chosen: int):
        super().__init__()
        if not 1 <= num_chosen <= num_experts:
            raise UserError(f'{num_chosen} experts per item: choose 1 to {num_experts}, the number of experts.')
        self.num_chosen = num_chosen
        self.router = Router(dim, num_experts, bias=False)
        self.fc1 = ExpertLinear(num_experts, dim, hidden_dim)
        self.fc2 = ExpertLinear(num_experts, hidden_dim, dim)
        self.register_buffer('balance', torch.zeros(()), persistent=False)
        self.register_buffer('shares', torch.zeros(num_experts), persistent=False)
        self.register_buffer('loss_scale', torch.ones(()), persistent=False)

    def set_loss_scale(self, scale: Tensor | float) -> None:
        """Scale the balancing loss like the loss of the training (fp16, accumulation), as ``BalanceHook`` does."""
        self.loss_scale.copy_(torch.as_tensor(scale))

    def forward(self, x: Tensor) -> Tensor:
        items = x.flatten(0, -2)
        logits = noisy = self.router(items)
        if self.training:  # drawn in one dtype, so that a seed gives the same noise in every precision
            noisy = logits + torch.randn_like(logits, dtype=torch.float32) / logits.shape[1]
        gates, chosen = noisy.softmax(1).topk(self.num_chosen)
        out = mix_experts(items, gates, chosen, self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias)
        if self.training and torch.is_grad_enabled():
            loss = BALANCE_WEIGHT * imbalance(logits, noisy, self.num_chosen)
            self.balance.copy_(loss.detach())
            self.shares.copy_(F.one_hot(chosen, len(self.shares)).sum((0, 1)) / chosen.numel())
            out = WithLoss.apply(out, loss, self.loss_scale)
        return out.view_as(x)


def imbalance(logits: Tensor, noisy: Tensor, num_chosen: int) -> Tensor:
    """Return the mean of the squared coefficients of variation of the experts' importance and load.

    It is 0 if items (N, experts) are spread evenly. `noisy` is `logits` plus normal noise of standard deviation
    1 / experts.
    """
    importance = logits.softmax(1).sum(0)
    threshold = noisy.topk(num_chosen).values[:, -1:]
    load = torch.special.ndtr((logits - threshold) * logits.shape[1]).mean(0)
    squared = [amounts.var(correction=0) / amounts.mean() ** 2 for amounts in (importance, load)]
    return (squared[0] + squared[1]) / 2


class WithLoss(Function):
    """The identity, whose backward pass also adds the gradient of `scale` times a loss."""

    @staticmethod
    def forward(x: Tensor, loss: Tensor, scale: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        _, loss, scale = inputs
        ctx.save_for_backward(scale.to(loss))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        return gradient, *ctx.saved_tensors, None
