"""Stop of a training run at the iteration where it diverges."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from torch import Tensor, nn

from ..errors import UserError, some
from ..registry import HOOKS
from .data_order import random_states, set_random_states
from .machine import unwrapped

ADVICE = (
    'Start a new training run from an earlier checkpoint (--cfg-options load_from=FILE) with a lower learning rate, '
    'longer warm-up, gradient clipping or full precision (optim_wrapper.type=OptimWrapper).'
)


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops a training run at the iteration where a loss, a gradient or a weight is not finite.

    The error names the value and the first module with such an output. It is raised before the optimizer changes the
    weights and before any hook saves them: every checkpoint is finite. The checks reduce all tensors to one number on
    the device. mmengine synchronizes the device in every iteration anyway. In mixed precision the scaler may skip steps
    that overflow; `max_skipped` of them in a row are an error.
    """

    priority = 'VERY_HIGH'

    def __init__(self, max_skipped: int = 50):
        self.max_skipped = max_skipped
        self.skipped = 0  # steps in a row
        self.stepped = False

    def before_train(self, runner: Any) -> None:
        self.model = unwrapped(runner.model)
        self.parameters = dict(self.model.named_parameters())
        if names := _not_finite(self.parameters):
            raise UserError(f'Not finite before the training: {some(names)}. Load other weights.')
        buffers = dict(self.model.named_buffers())
        excluded = _not_finite(buffers)  # a mask may contain -inf
        self.state = self.parameters | {name: buffer for name, buffer in buffers.items() if name not in excluded}
        wrapper = runner.optim_wrapper
        self.wrappers = list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        self.scaled = any(hasattr(wrapper, 'loss_scaler') for wrapper in self.wrappers)
        self.handles = [w.optimizer.register_step_pre_hook(lambda *_: self.before_step(runner)) for w in self.wrappers]

    def after_train(self, runner: Any) -> None:
        for handle in self.handles:
            handle.remove()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.batch, self.stepped, self.random = data_batch, False, random_states()

    def before_step(self, runner: Any) -> None:
        """Check the gradients before an optimizer step; a scaler checks its gradients itself."""
        self.stepped = True
        if not self.scaled:
            self._check_gradients(runner)

    def _check_gradients(self, runner: Any) -> None:
        if names := _not_finite({name: p.grad for name, p in self.parameters.items() if p.grad is not None}):
            # Between accumulated steps a single rank may fail; running the model again would deadlock SyncBN.
            raise self._error(runner, f'not finite: the gradient of {some(names)}', explain=self.stepped)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        losses = {name: torch.as_tensor(value) for name, value in (outputs or {}).items() if 'loss' in name}
        if self.scaled:
            self._count_skipped(runner)
        elif names := _not_finite(losses):
            raise self._error(runner, f'not finite: {some(names)}')
        elif not self.stepped:
            self._check_gradients(runner)
        if names := _not_finite(self.state):
            raise UserError(f'Stopped at iteration {runner.iter + 1}: not finite: {some(names)}. {ADVICE}')

    def _count_skipped(self, runner: Any) -> None:
        if self.stepped:
            self.skipped = 0
        elif all(wrapper.should_update() for wrapper in self.wrappers):
            self.skipped += 1
        if self.skipped >= self.max_skipped:
            raise self._error(
                runner, f'gradients overflowed in {self.skipped} steps in a row, which the scaler skipped'
            )

    def _error(self, runner: Any, reason: str, explain: bool = False) -> UserError:
        details = self._explain() if explain or get_world_size() == 1 else ''
        return UserError(f'Stopped at iteration {runner.iter + 1}: {reason}{details}. {ADVICE}')

    def _explain(self) -> str:
        """Run the batch again with the same random numbers; name the loss terms and the first module at fault."""
        modules: list[str] = []

        def check(name: str, output: Any) -> None:
            if not modules and not _are_finite(_tensors(output)):
                modules.append(name or type(self.model).__name__)

        handles = [
            module.register_forward_hook(lambda _, args, output, name=name: check(name, output))
            for name, module in self.model.named_modules()
        ]
        set_random_states(self.random)
        try:
            with torch.no_grad(), self.wrappers[0].optim_context(self.model):
                losses = self.model._run_forward(self.model.data_preprocessor(self.batch, True), mode='loss')
        finally:
            for handle in handles:
                handle.remove()
        names = [name for name, value in losses.items() if not _are_finite(_tensors(value))]
        if not names and not modules:
            return ' (if the batch is repeated, all losses and module outputs are finite)'
        first = f'; the first module with such an output is {modules[0]}' if modules else ''
        return f' (losses that are not finite: {some(names) or "none"}{first})'


def _not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of tensors with NaN or infinity; usually one reduction over all tensors suffices."""
    if _are_finite(tensors.values()):
        return []
    return [name for name, tensor in tensors.items() if not _are_finite([tensor])]


def _are_finite(tensors: Iterable[Tensor]) -> bool:
    tensors = [tensor.detach() for tensor in tensors if tensor.is_floating_point() and tensor.numel()]
    if not tensors or math.isfinite(nn.utils.get_total_norm(tensors)):
        return True
    return all(bool(tensor.isfinite().all()) for tensor in tensors)  # the square of a large number overflows


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)
