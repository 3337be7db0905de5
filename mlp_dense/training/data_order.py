"""Order and augmentation of the training data, independent of interruptions and of the number of loading processes."""

import os
import random
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from torch.utils.data import BatchSampler, Dataset, Sampler

from ..errors import UnreadableError, counted
from ..mmengine_privates import restart
from ..registry import DATA_SAMPLERS, DATASETS, FUNCTIONS

MAX_SKIPPED = 100  # consecutive unreadable images


def random_states() -> dict[str, Any]:
    """Return the states of the random number generators of this process, as builtin containers and tensors."""
    _, mt19937, *others = np.random.get_state(legacy=True)
    states: dict[str, Any] = dict(random=random.getstate(), numpy=(np.asarray(mt19937).tolist(), *others))
    states['torch'] = torch.get_rng_state()
    if torch.cuda.is_initialized():
        states['cuda'] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: dict[str, Any]) -> None:
    """Restore the result of :func:`random_states`."""
    random.setstate(states['random'])
    np.random.set_state(('MT19937', *states['numpy']))
    torch.set_rng_state(states['torch'].cpu())
    if 'cuda' in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states['cuda'].cpu())


@DATASETS.register_module()
class SeededDataset(Dataset):
    """A data set whose samples draw their random numbers from the seed, the epoch and their index.

    If a sample cannot be decoded, the next one is returned, with the reason in its meta data (`unreadable`).
    """

    def __init__(self, dataset: dict, seed: int):
        self.__dict__.update(dataset=DATASETS.build(dataset), seed=seed)

    def __getitem__(self, key: tuple[int, int] | int) -> Any:
        if not isinstance(key, tuple):
            return self.dataset[key]
        index, epoch = key
        states = random_states()
        try:
            seeds = np.random.SeedSequence((self.seed, epoch, index)).generate_state(3)
            random.seed(int(seeds[0]))
            np.random.seed(seeds[1])
            torch.default_generator.manual_seed(int(seeds[2]))
            return self._readable(index)
        finally:
            set_random_states(states)

    def _readable(self, index: int) -> Any:
        reasons: list[str] = []
        for number in range(index, index + min(MAX_SKIPPED, len(self))):
            try:
                sample = self.dataset[number % len(self)]
            except UnreadableError as error:
                reasons.append(str(error))
                continue
            if reasons:
                sample['data_samples'].set_metainfo(dict(unreadable=reasons))
            return sample
        raise UnreadableError(f'{reasons[0]} The next {counted(len(reasons) - 1, "image")} cannot be read either.')

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':  # absent while a loading process unpickles this object
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.dataset, name, value)


@DATA_SAMPLERS.register_module()
class SeededBatches(BatchSampler):
    """Batches of (index, epoch) from another batch sampler; empty until the training loop sets the number `first`."""

    def __init__(self, sampler: Sampler, batch_size: int, inner: dict):
        self.sampler, self.batch_size = sampler, batch_size
        self.inner = DATA_SAMPLERS.build(inner, default_args=dict(sampler=sampler, batch_size=batch_size))
        self.endless = isinstance(sampler, InfiniteSampler)
        self.first: int | None = None

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:  # type: ignore[override]
        if self.first is None:
            return
        if self.endless:
            restart(self.sampler)
        for number, batch in enumerate(self.inner):
            if number >= self.first:
                start = number * self.batch_size
                yield [(index, self._epoch(start + i)) for i, index in enumerate(batch)]

    def __len__(self) -> int:
        return len(self.inner)

    def _epoch(self, position: int) -> int:
        if self.endless:  # all processes share its epochs
            return (self.sampler.rank + position * self.sampler.world_size) // self.sampler.size
        return getattr(self.sampler, 'epoch', 0)


@FUNCTIONS.register_module()
def leave_signals(worker_id: int) -> None:
    """Make a loading process ignore SIGINT, and ignore SIGTERM unless the main process sends it.

    A cluster signals all processes of a job. Loading must continue while the main process finishes its iteration.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, 'sigwaitinfo'):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_parent, daemon=True).start()


def _obey_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
