"""Quick training runs with every source of randomness, interruptions of them, and comparisons of their results."""

import importlib.util
import json
import os
import runpy
import signal
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPERS

from support.configs import DETECTION, SEGMENTATION, thin
from support.tools import call, own_globals

SHORT = {
    DETECTION: {'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1},
    SEGMENTATION: {'train_cfg.max_iters': 4, 'train_cfg.val_interval': 4, 'default_hooks.checkpoint.interval': 4},
}
"""Changes of a config for `write_config`: four iterations and a validation."""


@HOOKS.register_module(force=True)
class SignalHook(Hook):
    """Hook that sends signals to its own process in one iteration, but not after torchrun restarted the process."""

    def __init__(self, at: int, signals: tuple[str, ...], rank: int = 0):
        self.at, self.signals, self.rank = at, signals, rank

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        first = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') == '0'
        if first and runner.iter + 1 == self.at and runner.rank == self.rank:
            for name in self.signals:
                os.kill(os.getpid(), getattr(signal, name))


@OPTIM_WRAPPERS.register_module(force=True)
class ScaledOnCPU(AmpOptimWrapper):
    """Mixed precision with loss scaling, as on a GPU."""

    def __init__(self, **kwargs):
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter('ignore', FutureWarning)  # from mmengine's own scaler, which is for a GPU
            patch.setattr('mmengine.optim.optimizer.amp_optimizer_wrapper.is_cuda_available', lambda: True)
            super().__init__(loss_scale=dict(enabled=False), dtype='bfloat16', **kwargs)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=4.0, growth_interval=2)


def write_config(base: str, folder: Path, data: Path, **changes) -> Path:
    """Write a quick config with random order, augmentation, dropout and stochastic depth."""
    cfg = Config.fromfile(base)
    thin(cfg)
    cfg.model.backbone.drop_path_rate = 0.3
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root, loader.batch_size = str(data), 2
        loader.dataset.indices = 8 if loader is cfg.train_dataloader else 2
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        if 'ann_file' in evaluator:
            evaluator.ann_file = evaluator.ann_file.replace('data/shapes', str(data))
    cfg.train_dataloader.dataset.pipeline.insert(-1, dict(type='PhotoMetricDistortion'))
    cfg.default_hooks.logger.interval = 1
    cfg.default_hooks.pop('visualization')
    cfg.merge_from_dict(changes)
    file = folder / 'config.py'
    cfg.dump(file)
    return file


def records_of(work_dir: Path) -> dict[int, dict]:
    """Return the last record of every iteration, without times and memory."""
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    timed = ('time', 'data_time', 'memory')
    return {
        (line['step'], 'lr' in line): {key: value for key, value in line.items() if key not in timed} for line in lines
    }


def assert_equal_states(first_path: Path, second_path: Path) -> None:
    """Compare weights, averaged weights, optimizer and schedule of two checkpoints bit for bit."""
    first, second = (torch.load(file, weights_only=False) for file in (first_path, second_path))
    for key in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers', 'mlp_dense_state'):
        leaves, others = (torch.utils._pytree.tree_leaves(content.get(key)) for content in (first, second))
        assert len(leaves) == len(others)
        for a, b in zip(leaves, others, strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, key


def foreign_script(package: str) -> Path:
    """Return the training script that `mmdet` or `mmseg` installs."""
    return Path(importlib.util.find_spec(package).origin).with_name('.mim') / 'tools' / 'train.py'


def start(
    *arguments, log: Path, tool: str | Path = 'train', prepare: Callable[[], None] = lambda: None, **environment: str
) -> int:
    """Start `tools/TOOL.py`, or the script of a path, in a fork of this process; return its number.

    `prepare` runs in it first. Its output goes to a file.
    """
    if pid := os.fork():
        return pid
    try:
        os.setpgid(0, 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = sys.stderr = os.fdopen(1, 'w', buffering=1, closefd=False)
        os.environ.update(environment)
        warnings.resetwarnings()
        # The destructor of gloo's process group can wait for a thread forever in a fork, which ends without it.
        torch.distributed.destroy_process_group = lambda: None
        prepare()
        status = call(tool, *arguments) if isinstance(tool, str) else _run_script(tool, *arguments)
    except BaseException:
        traceback.print_exc()
        status = 70
    finally:
        sys.stdout.flush()
        os._exit(status if isinstance(status, int) else 71)


def _run_script(script: Path, *arguments) -> int:
    with patch.object(sys, 'argv', [str(script), *map(str, arguments)]), own_globals():
        runpy.run_path(str(script), run_name='__main__')
    return 0


def wait(pid: int, limit: int = 300) -> int:
    """Return the exit status of a process, or minus the number of the signal that killed it.

    If the process hangs for `limit` seconds, it and this process are aborted: the fault handler of pytest prints where.
    """

    def abort() -> None:
        os.kill(pid, signal.SIGABRT)
        os.abort()

    watchdog = threading.Timer(limit, abort)
    watchdog.start()
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        watchdog.cancel()


def two_processes() -> list[dict[str, str]]:
    """Return the environments of the two processes of a distributed training on this machine."""
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        port = server.getsockname()[1]
    common = dict(
        OMP_NUM_THREADS='1', MKL_NUM_THREADS='1', WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port)
    )
    return [dict(common, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(2)]
