"""What a checkpoint needs beside weights, optimizer and schedule, so that a resumed training is the unbroken one."""

import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from ..errors import CheckpointError, counted
from .data_order import kept_random_states, validates
from .machine import unwrapped


def training_state(runner: Any, validated: bool) -> dict[str, Any]:
    """The states of the random numbers in all processes, gradients that wait for an optimizer step, and whether the
    validation of this point is done: plain containers and tensors."""
    _, mt19937, *rest = np.random.get_state()
    own = dict(random=random.getstate(), numpy=(mt19937.tolist(), *rest), torch=torch.get_rng_state())
    if torch.cuda.is_available():
        own['cuda'] = torch.cuda.get_rng_state()
    if not getattr(runner.optim_wrapper, 'should_update', lambda: True)():
        parameters = unwrapped(runner.model).named_parameters()
        own['gradients'] = {name: p.grad.cpu() for name, p in parameters if p.grad is not None}
    return dict(processes=all_gather_object(own), batches=len(runner.train_dataloader), validated=validated)


class ResumeHook(Hook):
    """Goes on where the training stopped that a checkpoint is of."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        if runner._resume:
            self.state = checkpoint.get('mlp_dense_state') or {}
            if not self.state:
                runner.logger.warning(
                    'The checkpoint holds no states of random numbers, as those of other tools: '
                    'this will not be exactly the training that an unbroken one would have been.'
                )

    def before_train(self, runner: Any) -> None:
        if rank := get_rank():  # else all processes would draw the same for their different images
            own = np.random.SeedSequence((runner.seed, rank)).generate_state(3)
            random.seed(int(own[0]))
            np.random.seed(own[1])
            torch.manual_seed(int(own[2]))
        if not self.state:
            return
        loop, before, now = runner.train_loop, len(self.state['processes']), get_world_size()
        if (before, self.state['batches']) != (now, len(loop.dataloader)):
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
        self._restore()  # once more: the beginning may have drawn some
        self.state = {}

    def _restore(self) -> None:
        if self.state and len(self.state['processes']) == get_world_size():
            own = self.state['processes'][get_rank()]
            random.setstate(own['random'])
            np.random.set_state(('MT19937', *own['numpy']))
            torch.set_rng_state(own['torch'].cpu())
            if 'cuda' in own and torch.cuda.is_available():
                torch.cuda.set_rng_state(own['cuda'].cpu())

    def before_val(self, runner: Any) -> None:
        self.kept = kept_random_states()  # validation, at whatever point, changes nothing in the training
        self.kept.__enter__()

    def after_val(self, runner: Any) -> None:
        self.kept.__exit__(None, None, None)

    def _fit(self, runner: Any, before: int, now: int) -> None:
        """Goes on with other batches than before. CheckpointError: it would be in the middle of an epoch."""
        loop, batches = runner.train_loop, self.state['batches']
        old, new = (
            f'{counted(count, "process")} with {counted(length, "batch")}'
            for count, length in ((before, batches), (now, len(loop.dataloader)))
        )
        if isinstance(loop, EpochBasedTrainLoop):
            epochs, rest = divmod(loop._iter, batches)
            if rest:
                raise CheckpointError(
                    f'This checkpoint was saved within an epoch of {old}, which {new} cannot go on with; '
                    'resume with as many processes and images per batch, or from a checkpoint at the end of an epoch.'
                )
            loop._iter = epochs * len(loop.dataloader)
            _replay_schedules(runner, epochs, len(loop.dataloader))
        runner.logger.warning(
            f'Resumed with {new} instead of {old}: the learning rate is not scaled, '
            'and order and random numbers of the rest are not those of an unbroken training.'
        )


def _replay_schedules(runner: Any, epochs: int, batches: int) -> None:
    """Steps new schedules through the past, as if its epochs had had so many batches: those that count iterations would
    else end early or never."""
    schedulers = runner.param_schedulers
    known = isinstance(schedulers, list) and not any(hasattr(each, 'monitor') for each in schedulers)
    if not known or all(each.by_epoch for each in schedulers):
        return
    for group in runner.optim_wrapper.param_groups:
        group['lr'] = group['initial_lr']
    runner.param_schedulers = runner.build_param_scheduler(runner.cfg.param_scheduler)
    runner.optim_wrapper._global_step = 0  # mmengine warns of schedules that run ahead of the optimizer
    for _ in range(epochs):
        for _ in range(batches):
            for each in runner.param_schedulers:
                if not each.by_epoch:
                    each.step()
        for each in runner.param_schedulers:
            if each.by_epoch:
                each.step()
