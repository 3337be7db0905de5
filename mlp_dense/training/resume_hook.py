"""State beyond weights, optimizer and schedule that makes a resumed training equal to an uninterrupted one."""

import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from ..errors import CheckpointError, counted
from ..registry import HOOKS
from .data_order import random_states, set_random_states
from .loops import validates
from .machine import unwrapped


def training_state(runner: Any, validated: bool) -> dict[str, Any]:
    """Return random states of all processes, accumulated gradients and whether this point is `validated`.

    The result contains builtin containers and tensors only.
    """
    state = random_states()
    if not getattr(runner.optim_wrapper, 'should_update', lambda: True)():
        parameters = unwrapped(runner.model).named_parameters()
        state['gradients'] = {name: p.grad.cpu() for name, p in parameters if p.grad is not None}
    return dict(processes=all_gather_object(state), batches=len(runner.train_dataloader), validated=validated)


@HOOKS.register_module()
class ResumeHook(Hook):
    """Restores the state of a checkpoint before a resumed training, and the random states after each validation."""

    priority = 95  # after CheckpointHook, before ConsoleHook

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        if runner._resume:
            self.state = checkpoint.get('mlp_dense_state') or {}
            if not self.state:
                runner.logger.warning(
                    'The checkpoint contains no random states, like those of other tools: '
                    'this training will differ from an uninterrupted one.'
                )

    def before_train(self, runner: Any) -> None:
        if rank := get_rank():  # otherwise all processes draw the same random numbers for their different images
            seeds = np.random.SeedSequence((runner.seed, rank)).generate_state(3)
            random.seed(int(seeds[0]))
            np.random.seed(seeds[1])
            torch.manual_seed(int(seeds[2]))
        if not self.state:
            return
        loop, before = runner.train_loop, (len(self.state['processes']), self.state['batches'])
        if before != (now := (get_world_size(), len(loop.dataloader))):
            self._fit(runner, before, now)
        else:
            gradients = self.state['processes'][get_rank()].get('gradients', {})
            for name, parameter in unwrapped(runner.model).named_parameters():
                if name in gradients:
                    parameter.grad = gradients[name].to(parameter.device)
        self._restore()
        loop._decide_current_val_interval()
        if runner.val_loop and validates(loop) and not self.state['validated']:
            runner.val_loop.run()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self._restore()  # again, since the start of the loop may have drawn random numbers
        self.state = {}

    def _restore(self) -> None:
        if self.state and len(self.state['processes']) == get_world_size():
            set_random_states(self.state['processes'][get_rank()])

    def before_val(self, runner: Any) -> None:
        self.kept = random_states()  # a validation must not change the training

    def after_val(self, runner: Any) -> None:
        set_random_states(self.kept)

    def _fit(self, runner: Any, before: tuple[int, int], now: tuple[int, int]) -> None:
        """Continue with another number of processes or images per batch; refuse it within an epoch."""
        loop = runner.train_loop
        old, new = (f'{counted(processes, "process")} with {counted(n, "batch")}' for processes, n in (before, now))
        if isinstance(loop, EpochBasedTrainLoop):
            epochs, within = divmod(loop.iter, before[1])
            if within:
                raise CheckpointError(
                    f'This checkpoint was saved within an epoch of {old}, which {new} cannot resume; '
                    'use as many processes and images per batch, or resume from a checkpoint at the end of an epoch.'
                )
            loop._iter = epochs * now[1]
            _replay_schedules(runner, epochs, now[1])
        runner.logger.warning(
            f'Resumed with {new} instead of {old}: the learning rate is not scaled, and the order and random numbers '
            'from now on differ from those of an uninterrupted training.'
        )


def _replay_schedules(runner: Any, epochs: int, batches: int) -> None:
    """Step new schedules through past epochs; otherwise those that count iterations would end early or never."""
    schedulers = runner.param_schedulers
    known = isinstance(schedulers, list) and not any(hasattr(scheduler, 'monitor') for scheduler in schedulers)
    if not known or all(scheduler.by_epoch for scheduler in schedulers):
        return
    for group in runner.optim_wrapper.param_groups:
        group['lr'] = group['initial_lr']
    runner.param_schedulers = runner.build_param_scheduler(runner.cfg.param_scheduler)
    runner.optim_wrapper._global_step = 0  # mmengine warns of schedules that are ahead of the optimizer
    for iteration in range(1, epochs * batches + 1):
        for scheduler in sorted(runner.param_schedulers, key=lambda scheduler: scheduler.by_epoch):  # as mmengine does
            if not scheduler.by_epoch or iteration % batches == 0:
                scheduler.step()
