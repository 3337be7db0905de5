"""Train loops that can resume exactly at any iteration."""

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import BatchSampler

from ..errors import UserError, counted
from ..registry import LOOPS


class _ExactOrder:
    """A train loop whose data loader follows `exact_order` in the config of the Runner."""

    def __init__(self, runner: Any, dataloader: dict, *args: Any, **kwargs: Any):
        dataloader, order = copy.deepcopy(dataloader), runner.cfg.get('exact_order')
        if not order:
            raise UserError('The config has no exact_order; inherit _base_/exact_training.py of mlp_dense.')
        if not (inner := dataloader.get('batch_sampler')):
            inner = dict(type=BatchSampler, drop_last=dataloader.pop('drop_last', False))
        dataloader['batch_sampler'] = dict(type=order['batch_sampler'], inner=inner)
        dataloader['dataset'] = dict(type=order['dataset'], dataset=dataloader['dataset'], seed=runner.seed)
        dataloader.setdefault('worker_init_fn', dict(type=order['worker_init']))
        super().__init__(runner, dataloader, *args, **kwargs)  # type: ignore[call-arg]
        loader: Any = self.dataloader  # type: ignore[attr-defined]
        batches = loader.batch_sampler
        if not len(loader) and not batches.endless:
            images, processes = counted(len(loader.dataset), 'image'), counted(runner.world_size, 'process')
            few = f'The training data have {images}, too few for a batch of {batches.batch_size} in {processes}'
            raise UserError(f'{few}: lower train_dataloader.batch_size, or set drop_last=False there.')


@LOOPS.register_module()
class EpochLoop(_ExactOrder, EpochBasedTrainLoop):
    """An EpochBasedTrainLoop of mmengine that can resume in the middle of an epoch."""

    def run_epoch(self) -> None:
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        first = self._iter - self._epoch * len(self.dataloader)
        self.dataloader.batch_sampler.first = first
        for idx, data_batch in enumerate(self.dataloader, first):
            self.run_iter(idx, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


@LOOPS.register_module()
class IterLoop(_ExactOrder, IterBasedTrainLoop):
    """An IterBasedTrainLoop of mmengine that resumes without loading the data of the past."""

    def run(self) -> torch.nn.Module:
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        batches = self._batches()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(batches))
            self._decide_current_val_interval()
            if self.runner.val_loop is not None and validates(self):
                self.runner.val_loop.run()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def _batches(self) -> Iterator[Any]:
        batches = self.dataloader.batch_sampler
        start, batches.first = (0, self._iter) if batches.endless else divmod(self._iter, len(batches))
        for epoch in itertools.count(start):
            if hasattr(batches.sampler, 'set_epoch'):
                batches.sampler.set_epoch(epoch)
            yield from self.dataloader
            batches.first = 0


def validates(loop: EpochBasedTrainLoop | IterBasedTrainLoop) -> bool:
    """Whether a train loop validates at the iteration that it has reached."""
    now, end = loop.iter, loop.max_iters
    if isinstance(loop, EpochBasedTrainLoop):
        if loop.iter != loop.epoch * len(loop.dataloader):
            return False
        now, end = loop.epoch, loop.max_epochs
    return now >= max(loop.val_begin, 1) and (now % loop.val_interval == 0 or now == end)


def validations_left(loop: EpochBasedTrainLoop | IterBasedTrainLoop) -> int:
    """Return how often a train loop will validate from now on."""
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    done, last = (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
    return sum(step % loop.val_interval == 0 or step == last for step in range(max(done + 1, loop.val_begin), last + 1))
