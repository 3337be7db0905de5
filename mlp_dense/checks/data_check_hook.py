"""Check of images, labels and annotations before the first iteration, and report of skipped images after it."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook

from ..config.validation import building
from ..datasets.layout import leaves
from ..errors import UserError
from ..registry import HOOKS
from . import data_check
from .band_agreement import band_count
from .coco_data import annotation_findings
from .findings import Finding, exit_status, merged, table


@HOOKS.register_module()
class DataCheckHook(Hook):
    """Check of the data before a run, reported in one table; an error if an image, label or annotation would stop it.

    Before a training, it decodes images and labels and compares them with the annotations: a sample, or `everything`,
    which ``check_data=True`` in a config sets too. Before a test, it checks the annotations alone.
    """

    priority = 'VERY_HIGH'

    def __init__(self, everything: bool = False):
        self.everything = everything

    def before_train(self, runner: Any) -> None:
        check_training_data(runner, self.everything or bool(runner.cfg.get('check_data')))

    def before_test(self, runner: Any) -> None:
        loop = runner.test_loop
        findings: list[Finding] = []
        for dataset in leaves(loop.dataloader.dataset) if is_main_process() else ():
            findings += annotation_findings('test', dataset, _is_foreign(loop))
        _report(runner, merged(chain.from_iterable(all_gather_object(findings))), 'annotations')


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
                limit, total = _max_unreadable(runner), len(runner.train_dataloader.dataset)
                count = f'{len(self.reasons)} of {total} images cannot be read'
                if len(self.reasons) > limit * total:
                    raise UserError(f'{reason} {count}, more than max_unreadable={limit} of them.')
                runner.logger.warning(f'{reason} Skipped; {count} so far.')


def check_training_data(runner: Any, everything: bool = True) -> int:
    """Check the data of a training and its validation, and return the number of images."""
    with building(runner.cfg, running=True):  # the loops, on first use
        loops = dict(train=runner.train_loop, val=runner.val_loop)
    loaders = {name: loop.dataloader for name, loop in loops.items() if loop}
    data = [(name, dataset) for name, loader in loaders.items() for dataset in leaves(loader.dataset)]
    data = [(name, dataset) for name, dataset in data if hasattr(dataset, 'get_data_info')]
    foreign = ['val'] if loops['val'] and _is_foreign(loops['val']) else []
    findings, _ = data_check.inspect(data, everything, foreign, _max_unreadable(runner), band_count(runner.cfg))
    checked = 'images' if everything else f'{data_check.SAMPLE} images of each set; --check-data checks all'
    _report(runner, findings, f'annotations and {checked}')
    return sum(len(dataset) for _, dataset in data)


def _is_foreign(loop: Any) -> bool:
    """Whether a metric of COCO is that of mmdet."""
    kinds = [type(metric) for metric in loop.evaluator.metrics]
    return any(kind.__module__.startswith('mmdet.') and kind.__name__ == 'CocoMetric' for kind in kinds)


def _max_unreadable(runner: Any) -> float:
    return runner.cfg.get('max_unreadable', 0.01)


def _report(runner: Any, findings: Sequence[Finding], checked: str) -> None:
    """Log the findings as one table. Raises UserError if one of them is an error."""
    if not findings:
        return
    rows = table(findings).replace('\n', '\n    ')
    if exit_status(findings):
        runner.logger.warning(f'Problems in the data ({checked}):\n    {rows}')
    else:
        runner.logger.info(f'Notes on the data ({checked}):\n    {rows}')
    if findings[0].severity == 'error':
        raise UserError(findings[0].sentence())
