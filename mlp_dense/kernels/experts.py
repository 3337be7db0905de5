"""The computation of a mixture of experts, in eager mode, under torch.compile and in exported graphs."""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import applies, expert_mlp
from .compat import round_up
from .onednn import library, needs_gradients

ROWS = 64
"""oneDNN builds a new product for every new number of rows: computing up to so many additional rows costs less."""


def mix_experts(
    items: Tensor, gates: Tensor, chosen: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor
) -> Tensor:
    """Map items (N, dim) by the experts `chosen` (N, K), each an MLP, and sum the results, weighted by `gates` (N, K).

    Only the chosen experts are computed, each for all of its items together. Compiled training computes all of them,
    because the number of items of an expert depends on the data.
    """
    weights = weight1, bias1, weight2, bias2
    if not torch.compiler.is_compiling():
        return mix_chosen(items, gates, chosen, *weights)
    if needs_gradients(items, gates, *weights):
        return mix_all(items, gates, chosen, *weights)
    cast = [weight.to(items.dtype) for weight in weights]  # autocast does not reach into the operator
    return torch.ops.mlp_dense.mix_experts.default(items, gates, chosen, *cast)


def mix_all(items: Tensor, gates: Tensor, chosen: Tensor, *weights: Tensor) -> Tensor:
    """Compute every expert for every item; the gate of an expert that is not chosen is zero."""
    num_experts = len(weights[0])
    gates = (F.one_hot(chosen, num_experts).to(gates.dtype) * gates.unsqueeze(2)).sum(1).to(items.dtype)
    outs = [
        gates[:, expert, None] * F.linear(F.gelu(F.linear(items, weight1, bias1)), weight2, bias2).to(items.dtype)
        for expert, (weight1, bias1, weight2, bias2) in enumerate(zip(*(w.unbind() for w in weights), strict=True))
    ]
    return torch.stack(outs).sum(0)


def mix_chosen(items: Tensor, gates: Tensor, chosen: Tensor, *weights: Tensor) -> Tensor:
    """Sort the items by expert and compute each expert for its own items."""
    order, counts = _by_expert(chosen, len(weights[0]))
    step = ROWS if applies(items, *weights) else 1
    rows = [round_up(count, step) for count in counts]  # additional rows compute any item
    length, room = torch.tensor([counts, rows], device=order.device)
    before = (room - length).cumsum(0) - (room - length)
    places = torch.arange(len(order), device=order.device)
    places += before.repeat_interleave(length, output_size=len(order))
    sources = order.new_zeros(sum(rows)).scatter_(0, places, order // chosen.shape[1])
    outs = [
        expert_mlp(expert_items, *expert_weights)
        for expert_items, *expert_weights in zip(items.index_select(0, sources).split(rows), *weights, strict=True)
        if len(expert_items)
    ]
    out = torch.cat(outs).index_select(0, torch.empty_like(order).scatter_(0, order, places))
    out = out.to(items.dtype).unflatten(0, chosen.shape) * gates.to(items.dtype).unsqueeze(2)
    return out.flatten(0, 1) if chosen.shape[1] == 1 else out.sum(1)


def _by_expert(chosen: Tensor, num_experts: int) -> tuple[Tensor, list[int]]:
    """Return the order of the choices (N, K), flattened, by expert, and the number of choices of each expert."""
    flat = chosen.flatten()
    if flat.is_meta:  # without values one expert represents all
        return flat, [len(flat)] + [0] * (num_experts - 1)
    return flat.argsort(stable=True), torch.bincount(flat, minlength=num_experts).tolist()


# An operator for compiled inference and exported graphs; ``export/onnx_ops.py`` translates it to ONNX.
library.define(f'mix_experts{torch.library.infer_schema(mix_experts, mutates_args=())}')
library.impl('mix_experts', mix_chosen, 'CompositeExplicitAutograd')
torch.library.register_fake('mlp_dense::mix_experts', lambda items, *_: torch.empty_like(items), lib=library)
