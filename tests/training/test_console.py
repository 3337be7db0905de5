"""Estimated end of a training and progress bar of a test."""

import io
import logging
import re
import sys
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
from mmengine.logging import MessageHub
from rich.console import Console
from rich.progress import Progress

from mlp_dense.errors import counted
from mlp_dense.training import console as progress
from mlp_dense.training.loops import IterLoop


@pytest.fixture
def runner(request):
    """Return a fake Runner after 10 of 100 iterations, with a validation every 25 iterations."""
    hub, hook = MessageHub.get_instance(f'progress {request.node.name}'), progress.ConsoleHook()
    for name in ('time', 'data_time', 'loss'):
        hub.update_scalar(f'train/{name}', 1.0)
    hub.update_info('eta', 3600.0)
    loop = IterLoop.__new__(IterLoop)
    loop.__dict__.update(_max_iters=100, val_interval=25, val_begin=1, _iter=9, dataloader=range(5))
    attributes = dict(message_hub=hub, hooks=[hook], iter=9, max_iters=100, test_dataloader=range(3))
    loops = dict.fromkeys(('train_loop', '_train_loop', 'val_loop'), loop)
    return SimpleNamespace(**attributes, **loops, console=progress.ConsoleFilter())


def end_in_log(runner) -> tuple[str, datetime]:
    """Return the word before the estimated end in the log, and that time."""
    _, line = progress.TimedLog(by_epoch=False).get_log_after_iter(runner, 9, 'train')
    match = re.search(r'eta: 1:00:00  end: (after )?(\d{4}-\d\d-\d\d \d\d:\d\d)  time: 1.0000', line)
    assert match, line
    return match[1] or '', datetime.fromisoformat(match[2])


def test_estimated_end_includes_validations(runner):
    hour = timedelta(hours=1)
    before = datetime.now()
    word, end = end_in_log(runner)
    assert word == 'after ' and timedelta(0) <= before + hour - end < timedelta(minutes=2)
    for seconds in (100.0, 140.0):  # a batch; four validations of 5 batches, of 10 minutes, are left
        runner.message_hub.update_scalar('val/time', seconds)
    word, end = end_in_log(runner)
    assert word == '' and timedelta(0) <= before + hour + timedelta(minutes=40) - end < timedelta(minutes=2)
    runner.val_loop = None
    word, end = end_in_log(runner)
    assert word == '' and timedelta(0) <= before + hour - end < timedelta(minutes=2)


@pytest.fixture
def no_screen(monkeypatch):
    """Do without the description of the run before a test."""
    monkeypatch.setattr(progress.ConsoleHook, '_open', lambda *_: None)


@pytest.mark.usefixtures('no_screen')
@pytest.mark.parametrize('terminal', [True, False])
def test_bar_replaces_lines_on_a_terminal(runner, monkeypatch, terminal):
    out = io.StringIO()
    shown = Console(file=out, force_terminal=True, width=80)
    monkeypatch.setattr(progress, 'Progress', lambda: Progress(console=shown))
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: terminal, raising=False)
    hook, line = runner.hooks[0], logging.makeLogRecord(dict(msg='Epoch(test) [1/3]  eta', levelno=logging.INFO))
    runner.console.is_open = True
    hook.before_test(runner)
    assert runner.console.filter(line) != terminal, 'lines, or a bar'
    for i in range(3):
        hook.after_test_iter(runner, i)
    assert runner.console.filter(line) and hook.bar is None, 'the metrics have a line'
    assert ('testing' in out.getvalue() and '100%' in out.getvalue()) == terminal


@pytest.mark.usefixtures('no_screen')
def test_failing_test_restores_the_terminal(runner, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(progress, 'Progress', lambda: Progress(console=Console(file=out, force_terminal=True)))
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True, raising=False)
    hook = runner.hooks[0]
    hook.before_test(runner)
    hook.close(runner)
    hook.close(runner)
    assert out.getvalue().endswith('\x1b[?25h'), 'the cursor is shown again'


def test_counted_nouns_have_plurals():
    assert counted(1, 'image') == '1 image' and counted(0, 'image') == '0 images'
    assert [counted(2, noun) for noun in ('epoch', 'batch', 'process')] == ['2 epochs', '2 batches', '2 processes']
    assert counted('?', 'image') == '? images'
