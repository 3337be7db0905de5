"""Mixtures of experts: a router sends every item to a few of several MLPs (V-MoE, arXiv 2106.05974)."""

import logging
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from . import fast_paths
from .compat import round_up

BALANCE_WEIGHT = 0.01
ROWS = 64
_balance_scale = torch.ones(())
_scale_is_known = False


def set_balance_scale(scale: Tensor | float) -> None:
    """By how much a training multiplies its loss before the backward pass: the balancing losses follow. Trainings with
    mmengine do it through `mlp_dense.BalanceHook`."""
    global _scale_is_known
    _balance_scale.copy_(torch.as_tensor(scale))
    _scale_is_known = True


class ExpertLinear(nn.Module):
    """A linear layer for each of several experts."""

    def __init__(self, num_experts: int, in_dim: int, out_dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_experts, out_dim, in_dim))
        self.bias = nn.Parameter(torch.empty(num_experts, out_dim))
        for weight in self.weight:
            nn.init.xavier_uniform_(weight)
        nn.init.normal_(self.bias, std=1e-6)


class Experts(nn.Module):
    """Maps items (..., dim) by `num_chosen` of `num_experts` MLPs each, and adds what they give, weighted by a router.

    In training the router's logits are noisy, and a balancing loss joins the gradient (V-MoE, appendix A): `balance`
    is its last value, and `shares` (num_experts) are the parts of the items that the experts got.
    """

    def __init__(self, dim: int, hidden_dim: int, num_experts: int, num_chosen: int):
        super().__init__()
        self.num_chosen = num_chosen
        self.router = nn.Linear(dim, num_experts, bias=False)
        self.fc1 = ExpertLinear(num_experts, dim, hidden_dim)
        self.fc2 = ExpertLinear(num_experts, hidden_dim, dim)
        self.register_buffer('balance', torch.zeros(()), persistent=False)
        self.register_buffer('shares', torch.zeros(num_experts), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        items = x.flatten(0, -2)
        precise = torch.promote_types(x.dtype, torch.float32)
        # A rounded logit would choose another expert.
        with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
            logits = F.linear(items.to(precise), self.router.weight.to(precise))
        noisy = logits
        if self.training:  # drawn in one type, so that a seed gives the same noise in every precision
            noisy = logits + torch.randn_like(logits, dtype=torch.float32) / logits.shape[1]
        gates, chosen = noisy.softmax(1).topk(self.num_chosen)
        out = mix_experts(items, gates, chosen, self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias)
        if self.training and torch.is_grad_enabled():
            loss = BALANCE_WEIGHT * imbalance(logits, noisy, self.num_chosen)
            self.balance.copy_(loss.detach())
            self.shares.copy_(F.one_hot(chosen, len(self.shares)).sum((0, 1)) / chosen.numel())
            out = WithLoss.apply(out, loss, _known_scale(x.device.type))
        return out.view_as(x)


def imbalance(logits: Tensor, noisy: Tensor, num_chosen: int) -> Tensor:
    """How unevenly items (N, experts) are spread over the experts, 0 if evenly: the mean of the squared coefficients of
    variation of their importance and of their load. `noisy` differs from `logits` by a deviation of 1 / experts."""
    importance = logits.softmax(1).sum(0)
    threshold = noisy.topk(num_chosen).values[:, -1:]
    load = torch.special.ndtr((logits - threshold) * logits.shape[1]).mean(0)
    return sum(each.var(correction=0) / each.mean() ** 2 for each in (importance, load)) / 2


class WithLoss(Function):
    """Gives a tensor as it is, and adds a loss, times `scale`, to whatever is minimized."""

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


def _known_scale(device: str) -> Tensor:
    global _scale_is_known
    asks = not (_scale_is_known or torch.compiler.is_compiling()) and torch.is_autocast_enabled(device)
    if asks and torch.get_autocast_dtype(device) == torch.float16:
        _scale_is_known = True  # one warning is enough
        logging.getLogger('mlp_dense').warning(
            'The balancing loss of the experts does not follow the loss scaling of fp16 training: add '
            "dict(type='mlp_dense.BalanceHook') to custom_hooks, or call mlp_dense.backbones.experts."
            'set_balance_scale before each iteration.'
        )
    return _balance_scale


def mix_experts(
    items: Tensor, gates: Tensor, chosen: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor
) -> Tensor:
    """(N, dim), of the experts `chosen` (N, K) weighted by `gates` (N, K). Only these are computed, each for all of its
    items at once."""
    weights = weight1, bias1, weight2, bias2
    if torch.compiler.is_compiling():
        weights = [each.to(items.dtype) for each in weights]  # autocast does not reach into the operator
        return torch.ops.mlp_dense.mix_experts.default(items, gates, chosen, *weights)
    return _mix(items, gates, chosen, *weights)


def _mix(items: Tensor, gates: Tensor, chosen: Tensor, *weights: Tensor) -> Tensor:
    order, counts = _by_expert(chosen, len(weights[0]))
    # oneDNN builds a product anew for every number of rows that it has not seen: a few more, of any item, cost less.
    step = ROWS if fast_paths.applies(items, *weights) else 1
    rows = [round_up(count, step) for count in counts]
    length, room = torch.tensor([counts, rows], device=order.device)
    before = (room - length).cumsum(0) - (room - length)
    places = torch.arange(len(order), device=order.device)
    places += before.repeat_interleave(length, output_size=len(order))
    sources = order.new_zeros(sum(rows)).scatter_(0, places, order // chosen.shape[1])
    outs = [
        fast_paths.mlp(part[None, None], *own, keep_gelu=True).flatten(0, 2)
        for part, *own in zip(items.index_select(0, sources).split(rows), *weights, strict=True)
        if len(part)
    ]
    out = torch.cat(outs).index_select(0, torch.empty_like(order).scatter_(0, order, places))
    out = out.to(items.dtype).unflatten(0, chosen.shape) * gates.to(items.dtype).unsqueeze(2)
    return out.flatten(0, 1) if chosen.shape[1] == 1 else out.sum(1)


def _by_expert(chosen: Tensor, num_experts: int) -> tuple[Tensor, list[int]]:
    """The choices (N, K), flattened, in the order of the experts; how many each expert has."""
    flat = chosen.flatten()
    if flat.is_meta:  # where nothing is computed one expert stands for all
        return flat, [len(flat)] + [0] * (num_experts - 1)
    return flat.argsort(stable=True), torch.bincount(flat, minlength=num_experts).tolist()


# For torch.compile, which cannot see how many items an expert gets: one operator with its gradient.


def _mix_backward(
    gradient: Tensor, items: Tensor, gates: Tensor, chosen: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    of_items, of_gates, *of_weights = map(torch.zeros_like, (items, gates, w1, b1, w2, b2))
    order, counts = _by_expert(chosen, len(w1))
    for expert, places in enumerate(order.split(counts)):
        rows = places // chosen.shape[1]
        x, outer = items[rows], gradient[rows]
        hidden = F.linear(x, w1[expert], b1[expert])
        activated = F.gelu(hidden)
        of_gates.view(-1)[places] = (outer * F.linear(activated, w2[expert], b2[expert])).sum(1).to(gates.dtype)
        outer = (outer * gates.flatten()[places, None]).to(items.dtype)
        inner = torch.ops.aten.gelu_backward(outer @ w2[expert], hidden)
        own = inner.T @ x, inner.sum(0), outer.T @ activated, outer.sum(0)
        for total, part in zip(of_weights, own, strict=True):
            total[expert] = part
        of_items.index_add_(0, rows, inner @ w1[expert])
    return of_items, of_gates, *of_weights


def _register() -> None:
    library, name = fast_paths.library, 'mix_experts'
    library.define(f'{name}{torch.library.infer_schema(mix_experts, mutates_args=())}')
    library.impl(name, _mix, 'CompositeExplicitAutograd')
    library.define(f'{name}_backward{torch.library.infer_schema(_mix_backward, mutates_args=())}')
    library.impl(f'{name}_backward', _mix_backward, 'CompositeExplicitAutograd')
    torch.library.register_fake(f'mlp_dense::{name}', lambda items, *_: torch.empty_like(items), lib=library)
    torch.library.register_fake(
        f'mlp_dense::{name}_backward',
        lambda gradient, items, gates, chosen, *weights: tuple(map(torch.empty_like, (items, gates, *weights))),
        lib=library,
    )

    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved = torch.ops.mlp_dense.mix_experts_backward(gradient, *ctx.saved_tensors)
        return *saved[:2], None, *saved[2:]

    torch.library.register_autograd(
        f'mlp_dense::{name}',
        backward,
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
        lib=library,
    )


_register()
