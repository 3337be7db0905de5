"""Handling of loading errors during a run."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.hooks import Hook

from ..errors import UserError
from ..registry import HOOKS


@HOOKS.register_module()
class SkippingHook(Hook):
    """Report of skipped images: those that cannot be decoded, or whose labels cannot.

    :class:`SeededDataset` returns the next image instead. Each one is reported once. The hook raises UserError if more
    than ``max_unreadable`` of all images are skipped; 1 % unless the config sets it.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self.reasons: set[str] = set()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
        for sample in samples if isinstance(samples, list) else ():
            for reason in set(sample.get('unreadable', ())) - self.reasons:
                self.reasons.add(reason)
                limit, total = runner.cfg.get('max_unreadable', 0.01), len(runner.train_dataloader.dataset)
                count = f'{len(self.reasons)} of {total} images cannot be read'
                if len(self.reasons) > limit * total:
                    raise UserError(f'{reason} {count}, more than max_unreadable={limit} of them.')
                runner.logger.warning(f'{reason} Skipped; {count} so far.')


@contextmanager
def explained(rank: int) -> Iterator[None]:
    """Raise UserError if a training process or a loading worker dies inside, or if a test batch cannot be stacked."""
    try:
        yield
    except AssertionError as error:
        if 'image size in a batch should be the same' not in str(error):  # of mmsegmentation's preprocessor
            raise
        raise UserError(
            'Images of different sizes are in one test batch, which segmentors cannot stack; '
            'set val_dataloader.batch_size=1 and test_dataloader.batch_size=1.'
        ) from error
    except RuntimeError as error:
        if re.search('closed by peer|reset by peer|Broken pipe|remote process exited', str(error)):
            raise UserError(
                f'Another process of this training has died (rank {rank} lost its connection); read the last message '
                'of that process, and resume with the same command and --resume.'
            ) from error
        if match := re.search(r'DataLoader worker \(pid.*(?:killed by signal: [\w ]+|exited unexpectedly)', str(error)):
            raise UserError(
                f'A loading process was killed ({match[0]}), usually because memory is full: use fewer of them '
                '(train_dataloader.num_workers), smaller batches, or in a container more shared memory '
                '(docker run --shm-size), and continue with --resume.'
            ) from error
        raise
