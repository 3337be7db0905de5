"""How far a run is: the estimated end of a training, and the bar of a test on a terminal."""

import re
import sys
import time
from datetime import datetime, timedelta
from statistics import mean
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, LogProcessor
from rich.progress import Progress

from .order import validations_left


class TimedLog(LogProcessor):
    """mmengine's lines, with the time of day and the date at which the whole training will end beside the `eta`, which
    leaves out validations. Before the first was measured, the end is said to be after that time."""

    def get_log_after_iter(self, runner: Any, batch_idx: int, mode: str) -> tuple[dict, str]:
        tag, text = super().get_log_after_iter(runner, batch_idx, mode)
        eta = runner.message_hub.runtime_info.get('eta')
        hook = next((each for each in runner.hooks if isinstance(each, ProgressHook)), None)
        if mode == 'train' and eta is not None and hook:
            text = re.sub(r'(eta: .+?)  ', rf'\1  end: {hook.end(runner, eta)}  ', text, count=1)
        return tag, text


class ProgressHook(Hook):
    """Measures validations, and shows one bar for a test instead of lines where the output is a terminal."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.validations: list[float] = []  # seconds
        self.bar: Progress | None = None

    def end(self, runner: Any, eta: float) -> str:
        """When a training ends of which `eta` seconds of iterations remain."""
        loop = runner.train_loop
        left = 0
        if runner.val_loop:
            left = validations_left(loop, loop.epoch if isinstance(loop, EpochBasedTrainLoop) else loop.iter)
        seconds = eta + left * (mean(self.validations) if self.validations else 0)
        at = (datetime.now() + timedelta(seconds=seconds)).isoformat(' ', 'minutes')
        return at if self.validations or not left else f'after {at}'

    def before_val(self, runner: Any) -> None:
        self.mark = time.monotonic()

    def after_val(self, runner: Any) -> None:
        self.validations.append(time.monotonic() - self.mark)

    def before_test(self, runner: Any) -> None:
        if sys.stdout.isatty() and is_main_process():
            self.bar, runner.console.has_bar = Progress(), True
            self.task = self.bar.add_task('testing', total=len(runner.test_loop.dataloader))
            self.bar.start()

    def after_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self.bar:
            self.bar.advance(self.task)
            if batch_idx + 1 == len(runner.test_loop.dataloader):  # the metrics are printed next
                self.close(runner)

    def close(self, runner: Any) -> None:
        """Gives the terminal back."""
        if self.bar:
            self.bar.stop()
            self.bar, runner.console.has_bar = None, False
