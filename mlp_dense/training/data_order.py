"""The order of the training data and their random augmentation: the same however often a training is interrupted.

Every sample has random numbers of its own, drawn from the seed, its epoch and its index: neither the number of loading
processes nor what was drawn before matters, and a resumed training goes on at the next batch without loading the past.
"""

import copy
import itertools
import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.registry import DATA_SAMPLERS, DATASETS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import BatchSampler, Dataset, Sampler

from ..errors import UnreadableError, counted

MAX_SKIPPED = 100  # images in a row


@contextmanager
def kept_random_states() -> Iterator[None]:
    """The random numbers of this process go on afterwards as if nothing had been drawn inside."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class SeededDataset(Dataset):
    """A data set whose samples draw their random numbers from the seed, the epoch and their index. One that cannot be
    decoded is the next one, and says so (``unreadable``). Everything else is that of the data set inside."""

    def __init__(self, dataset: dict, seed: int):
        self.__dict__.update(dataset=DATASETS.build(dataset), seed=seed)

    def __getitem__(self, key: tuple[int, int] | int) -> Any:
        if not isinstance(key, tuple):
            return self.dataset[key]
        index, epoch = key
        with kept_random_states():
            seeds = np.random.SeedSequence((self.seed, epoch, index)).generate_state(3)
            random.seed(int(seeds[0]))
            np.random.seed(seeds[1])
            torch.default_generator.manual_seed(int(seeds[2]))
            return self._readable(index)

    def _readable(self, index: int) -> Any:
        reasons = []
        for place in range(index, index + min(MAX_SKIPPED, len(self))):
            try:
                sample = self.dataset[place % len(self)]
            except UnreadableError as error:
                reasons.append(str(error))
                continue
            if reasons:
                sample['data_samples'].set_metainfo(dict(unreadable=reasons))
            return sample
        raise UnreadableError(f'{reasons[0]} Nor can {counted(len(reasons) - 1, "image")} after it be read.')

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':  # while it is unpickled in a loading process
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.dataset, name, value)


class SeededBatches(BatchSampler):
    """Batches of (index, epoch) from another batch sampler, from the batch `first` on; None: no batches at all, since
    the training loop has not said yet where it begins."""

    def __init__(self, sampler: Sampler, batch_size: int, inner: dict):
        self.sampler, self.batch_size = sampler, batch_size
        self.inner = DATA_SAMPLERS.build(inner, default_args=dict(sampler=sampler, batch_size=batch_size))
        self.first: int | None = None

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        if self.first is None:
            return
        if self.endless:
            self.sampler.indices = self.sampler._indices_of_rank()  # from its start, not from where it was left
        for number, batch in enumerate(self.inner):
            if number >= self.first:
                place = number * self.batch_size
                yield [(index, self._epoch(place + i)) for i, index in enumerate(batch)]

    def __len__(self) -> int:
        return len(self.inner)

    @property
    def endless(self) -> bool:
        return isinstance(self.sampler, InfiniteSampler)

    def _epoch(self, place: int) -> int:
        if self.endless:  # shared by all processes
            return (self.sampler.rank + place * self.sampler.world_size) // self.sampler.size
        return getattr(self.sampler, 'epoch', 0)


def seeded_loader(loader: dict, seed: int) -> dict:
    """The config of a train dataloader whose order and augmentation depend on the seed alone."""
    loader = copy.deepcopy(loader)
    inner = loader.get('batch_sampler') or dict(type=BatchSampler, drop_last=loader.pop('drop_last', False))
    loader['batch_sampler'] = dict(type=SeededBatches, inner=inner)
    loader['dataset'] = dict(type=SeededDataset, dataset=loader['dataset'], seed=seed)
    loader.setdefault('worker_init_fn', dict(type=leave_signals))
    return loader


def leave_signals(worker_id: int) -> None:
    """Leaves it to the main process when a loading process stops: what a cluster sends to all processes of a job must
    not end one while the main process finishes its iteration."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, 'sigwaitinfo'):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_parent, daemon=True).start()


def _obey_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


class EpochLoop(EpochBasedTrainLoop):
    """mmengine's loop over epochs, which goes on in the middle of one."""

    def run_epoch(self) -> None:
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        first = self._iter - self._epoch * len(self.dataloader)
        self.dataloader.batch_sampler.first = first
        for idx, data_batch in enumerate(self.dataloader, first):
            self.run_iter(idx, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


class IterLoop(IterBasedTrainLoop):
    """mmengine's loop over iterations, which goes on without loading the data of the past."""

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
    """Whether a train loop validates at the point that it has reached."""
    now, end = loop.iter, loop.max_iters
    if isinstance(loop, EpochBasedTrainLoop):
        if loop.iter != loop.epoch * len(loop.dataloader):
            return False
        now, end = loop.epoch, loop.max_epochs
    return now >= max(loop.val_begin, 1) and (now % loop.val_interval == 0 or now == end)


def validations_left(loop: EpochBasedTrainLoop | IterBasedTrainLoop, done: int) -> int:
    """How often a train loop, of which so many epochs or iterations are `done`, will validate."""
    last = loop.max_epochs if isinstance(loop, EpochBasedTrainLoop) else loop.max_iters
    before = max(done + 1, loop.val_begin, 1) - 1
    at_the_end = int(last % loop.val_interval > 0)
    return max(0, last // loop.val_interval - before // loop.val_interval + at_the_end) if before < last else 0


def exact_loop(loop: dict) -> dict | None:
    """The config of a train loop of mmengine, for the loop here that takes its place; None if it is another."""
    loop = dict(loop)
    kind = loop.pop('type', 'EpochBasedTrainLoop' if loop.get('by_epoch') else 'IterBasedTrainLoop')
    loop.pop('by_epoch', None)
    types = {'EpochBasedTrainLoop': EpochLoop, 'IterBasedTrainLoop': IterLoop}
    return dict(loop, type=types[kind]) if kind in types else None
