"""Stop of a training at the iteration where it diverges."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from torch import Tensor, nn

from ..errors import UserError, some
from ..registry import HOOKS
from .machine import unwrapped


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops a training at the iteration where a loss, a gradient or a weight is not finite.

    The error is raised before the optimizer changes the weights and before any hook saves them: every checkpoint is
    finite. The checks reduce all tensors to one number on the device, for which mmengine waits in every iteration
    anyway. In mixed precision the scaler may skip steps that overflow; `max_skipped` of them in a row are an error.
    """

    priority = 'VERY_HIGH'
    losses: Mapping[str, Tensor] = {}

    def __init__(self, max_skipped: int = 50):
        self.max_skipped = max_skipped
        self.skipped = 0  # steps in a row

    def before_train(self, runner: Any) -> None:
        model = unwrapped(runner.model)
        self.parameters = dict(model.named_parameters())
        if names := _not_finite(self.parameters):
            raise UserError(f'{some(names)} is not finite before the training: load other weights.')
        buffers = dict(model.named_buffers())
        excluded = _not_finite(buffers)  # a mask may contain -inf
        self.state = self.parameters | {name: buffer for name, buffer in buffers.items() if name not in excluded}
        wrapper = runner.optim_wrapper
        self.wrappers = list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        self.scaled = any(hasattr(wrapper, 'loss_scaler') for wrapper in self.wrappers)
        self.handles = [w.optimizer.register_step_pre_hook(lambda *_: self.before_step(runner)) for w in self.wrappers]
        self.handles.append(model.register_forward_hook(self._keep_losses))

    def _keep_losses(self, model: Any, args: tuple, output: Any) -> None:
        if model.training and isinstance(output, dict):
            means = model.parse_losses(output)[1]  # a loss may be a list of tensors
            self.losses = {name: mean.detach() for name, mean in means.items() if 'loss' in name}

    def after_train(self, runner: Any) -> None:
        for handle in self.handles:
            handle.remove()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.stepped, self.losses = False, {}

    def before_step(self, runner: Any) -> None:
        """Check losses and gradients before an optimizer step; a scaler checks its gradients itself."""
        self.stepped = True
        if not self.scaled:
            self._check(runner)

    def _check(self, runner: Any) -> None:
        if names := _not_finite(self.losses):
            raise _error(runner, f'{some(names)} is not finite')
        if names := _not_finite({name: p.grad for name, p in self.parameters.items() if p.grad is not None}):
            raise _error(runner, f'the gradient of {some(names)} is not finite, but all losses are')

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self.scaled:
            self._count_skipped(runner)
        elif not self.stepped:
            self._check(runner)
        if names := _not_finite(self.state):
            raise _error(runner, f'{some(names)} is not finite')

    def _count_skipped(self, runner: Any) -> None:
        if self.stepped:
            self.skipped = 0
        elif all(wrapper.should_update() for wrapper in self.wrappers):
            self.skipped += 1
        if self.skipped >= self.max_skipped:
            names = some(_not_finite(self.losses)) or 'no loss'
            reason = f'gradients overflowed in {self.skipped} steps in a row, which the scaler skipped'
            raise _error(runner, f'{reason}; {names} is not finite')


def _error(runner: Any, reason: str) -> UserError:
    return UserError(
        f'Stopped at iteration {runner.iter + 1}: {reason}. Resume from the last checkpoint (--resume) with a lower '
        'learning rate, longer warm-up or gradient clipping, or without --amp.'
    )


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
