"""The computation of a mixture of experts, in eager mode, under torch.compile and in exported graphs."""

from typing import Any

import torch
from torch import Tensor

from . import applies, expert_mlp
from .compat import round_up
from .onednn import library

ROWS = 64
"""Multiple to which rows are padded. oneDNN builds a new kernel for each number of rows, which costs more."""


def mix_experts(
    items: Tensor, gates: Tensor, chosen: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor
) -> Tensor:
    """Map items (N, dim) by the experts `chosen` (N, K), each an MLP, and sum the results, weighted by `gates` (N, K).

    A compiler calls one operator, because the number of items of an expert depends on the data.
    """
    weights = weight1, bias1, weight2, bias2
    if not torch.compiler.is_compiling():
        return mix_chosen(items, gates, chosen, *weights)
    cast = [weight.to(items.dtype) for weight in weights]  # autocast does not reach into the operator
    return torch.ops.mlp_dense.mix_experts.default(items, gates, chosen, *cast)


def mix_chosen(items: Tensor, gates: Tensor, chosen: Tensor, *weights: Tensor) -> Tensor:
    """Sort the items by expert and compute each expert for its own items."""
    order, num_experts = chosen.flatten(), len(weights[0])
    if order.is_meta:  # without values one expert represents all
        counts = [len(order)] + [0] * (num_experts - 1)
    else:
        counts, order = torch.bincount(order, minlength=num_experts).tolist(), order.argsort(stable=True)
    step = ROWS if applies(items, *weights) else 1
    rows = [round_up(count, step) for count in counts]  # additional rows compute any item
    length, room = torch.tensor([counts, rows], device=order.device)
    before = (room - length).cumsum(0) - (room - length)
    places = torch.arange(len(order), device=order.device)
    places += before.repeat_interleave(length, output_size=len(order))
    sources = order.new_zeros(sum(rows)).scatter_(0, places, order // chosen.shape[1])
    outs = [
        expert_mlp(expert_items[None, None], *expert_weights)[0, 0]
        for expert_items, *expert_weights in zip(items.index_select(0, sources).split(rows), *weights, strict=True)
        if len(expert_items)
    ]
    out = torch.cat(outs).index_select(0, torch.empty_like(order).scatter_(0, order, places))
    out = out.to(items.dtype).unflatten(0, chosen.shape) * gates.to(items.dtype).unsqueeze(2)
    return out.flatten(0, 1) if chosen.shape[1] == 1 else out.sum(1)


def mix_experts_backward(
    gradient: Tensor, items: Tensor, gates: Tensor, chosen: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of items, gates and weights; it computes the experts again."""
    with torch.enable_grad():
        items, gates, *weights = inputs = [x.detach().requires_grad_() for x in (items, gates, w1, b1, w2, b2)]
        out = mix_chosen(items, gates, chosen, *weights)
    return tuple(grad.contiguous() for grad in torch.autograd.grad(out, inputs, gradient))  # type: ignore[return-value]


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    items, gates, *weights = torch.ops.mlp_dense.mix_experts_backward(gradient, *ctx.saved_tensors)
    return items, gates, None, *weights


# Operators for compiled code and exported graphs; ``export/conversion.py`` translates the first to ONNX.
for operator, implementation in ((mix_experts, mix_chosen), (mix_experts_backward, mix_experts_backward)):
    library.define(f'{operator.__name__}{torch.library.infer_schema(operator, mutates_args=())}')
    library.impl(operator.__name__, implementation, 'CompositeExplicitAutograd')
torch.library.register_fake('mlp_dense::mix_experts', lambda items, *_: torch.empty_like(items), lib=library)
torch.library.register_fake(
    'mlp_dense::mix_experts_backward',
    lambda _, items, gates, chosen, *weights: tuple(x.new_empty(x.shape) for x in (items, gates, *weights)),
    lib=library,
)
torch.library.register_autograd(
    'mlp_dense::mix_experts',
    _backward,
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
    lib=library,
)
