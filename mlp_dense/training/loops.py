"""Train loops that can resume exactly at any iteration."""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from ..errors import UserError, counted
from ..registry import LOOPS
from .data_order import EXACT_ORDER, seeded_loader


def _exact(runner: Any, loader: Any) -> dict:
    """Return the config of a train dataloader with `exact_order` in the config of the Runner applied."""
    if not isinstance(loader, dict):
        raise UserError('The train dataloader is an object; pass the dict of a config to train with an exact order.')
    return seeded_loader(loader, runner.cfg.get('exact_order') or EXACT_ORDER, runner.seed)


def _check_length(loop: Any) -> None:
    """Raise a UserError if the data have too few images for a batch."""
    batches = loop.dataloader.batch_sampler
    if not len(loop.dataloader) and not batches.endless:
        images, processes = counted(len(loop.dataloader.dataset), 'image'), counted(loop.runner.world_size, 'process')
        few = f'The training data have {images}, too few for a batch of {batches.batch_size} in {processes}'
        raise UserError(f'{few}: lower train_dataloader.batch_size, or set drop_last=False there.')


@LOOPS.register_module()
class EpochLoop(EpochBasedTrainLoop):
    """An EpochBasedTrainLoop of mmengine that can resume in the middle of an epoch."""

    def __init__(self, runner: Any, dataloader: dict, *args: Any, **kwargs: Any):
        super().__init__(runner, _exact(runner, dataloader), *args, **kwargs)
        _check_length(self)

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
class IterLoop(IterBasedTrainLoop):
    """An IterBasedTrainLoop of mmengine that resumes without loading the data of the past."""

    def __init__(self, runner: Any, dataloader: dict, *args: Any, **kwargs: Any):
        super().__init__(runner, _exact(runner, dataloader), *args, **kwargs)
        _check_length(self)

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


def validations_left(loop: EpochBasedTrainLoop | IterBasedTrainLoop, done: int) -> int:
    """Return how often a train loop will validate after `done` epochs or iterations."""
    last = loop.max_epochs if isinstance(loop, EpochBasedTrainLoop) else loop.max_iters
    before = max(done + 1, loop.val_begin, 1) - 1
    at_the_end = int(last % loop.val_interval > 0)
    return max(0, last // loop.val_interval - before // loop.val_interval + at_the_end) if before < last else 0
