"""What a run does when loading fails."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.hooks import Hook

from ..errors import UserError
from ..registry import HOOKS


@HOOKS.register_module()
class SkippingHook(Hook):
    """Says which images were skipped since they or their labels cannot be decoded (:class:`SeededDataset` takes the
    next one instead), each once. UserError: they are more than ``max_unreadable`` of all, 1 % if a config is silent."""

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self.reasons: set[str] = set()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
        for sample in samples if isinstance(samples, list) else ():
            for reason in set(sample.get('unreadable', ())) - self.reasons:
                self._count(runner, reason)

    def _count(self, runner: Any, reason: str) -> None:
        self.reasons.add(reason)
        limit, total = runner.cfg.get('max_unreadable', 0.01), len(runner.train_dataloader.dataset)
        count = f'{len(self.reasons)} of {total} images cannot be read'
        if len(self.reasons) > limit * total:
            raise UserError(f'{reason} {count}, more than max_unreadable={limit} of them.')
        runner.logger.warning(f'{reason} Skipped; {count} so far.')


@contextmanager
def explained(rank: int) -> Iterator[None]:
    """Inside, the death of another process, of the training or of those that load, is a UserError; so is a batch that
    cannot be tested."""
    try:
        yield
    except AssertionError as error:
        if 'image size in a batch should be the same' not in str(error):  # of mmsegmentation's preprocessor
            raise
        raise UserError(
            'Images of different sizes are in one batch of a test, which segmentors cannot take; '
            'set val_dataloader.batch_size=1 and test_dataloader.batch_size=1.'
        ) from error
    except RuntimeError as error:
        said = str(error)
        if re.search('closed by peer|reset by peer|Broken pipe|remote process exited', said):
            raise UserError(
                f'Another process of this training has died (rank {rank} lost its connection); see what that one said '
                'last, and go on with the same command and --resume.'
            ) from error
        if found := re.search(r'DataLoader worker \(pid.*(?:killed by signal: [\w ]+|exited unexpectedly)', said):
            raise UserError(
                f'A loading process was killed ({found[0]}), most often because memory is full: take fewer of them '
                '(train_dataloader.num_workers), smaller batches, or in a container more shared memory '
                '(docker run --shm-size), and go on with --resume.'
            ) from error
        raise
