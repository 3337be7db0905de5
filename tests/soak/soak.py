"""Soak test (`make soak`): a long training run leaks neither memory nor processes, files or shared memory.

It is slow and started by hand: the name of this file keeps it out of `make test`. The test measures memory in use. The
C library keeps freed memory and must return it before each measurement. oneDNN keeps the code for up to 1024 sizes,
which `make soak` limits to 32.
"""

import ctypes
import gc
import os
from pathlib import Path
from statistics import mean

import pytest
from mmengine.hooks import Hook

from mlp_dense.config.config_file import read_config, set_work_dir
from mlp_dense.training.runner import build_runner
from mlp_dense.training.setup import for_training
from support.configs import thin_config

ITERATIONS, WARM_UP, VALIDATE, LOOK = 300, 100, 50, 10
SIZES = [(size, size) for size in range(64, 193, 32)]
RESIZE = dict(type='RandomChoiceResize', scales=SIZES, keep_ratio=False)


def resident(process: int | str = 'self') -> float:
    """Return the memory of a process in MB; shared pages count in proportion."""
    text = Path(f'/proc/{process}/smaps_rollup').read_text()
    return int(text.partition('Pss:')[2].split()[0]) / 1024


def children() -> set[int]:
    return {int(pid) for task in Path('/proc/self/task').iterdir() for pid in (task / 'children').read_text().split()}


def held() -> dict[str, int]:
    """Count what a process can leak apart from memory."""
    gc.collect()
    shared = sum(1 for name in os.listdir('/dev/shm') if name.startswith('torch_'))
    return dict(files=len(os.listdir('/proc/self/fd')), processes=len(children()), shared_memory=shared)


class Watch(Hook):
    """Records the memory in MB of this process and its loading processes."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.memory: list[float] = []
        self.held: list[dict[str, int]] = []
        self.readers: set[int] = set()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if (runner.iter + 1) % LOOK == 0:
            readers = children()
            self.readers |= readers
            ctypes.CDLL('libc.so.6').malloc_trim(0)
            self.memory.append(resident() + sum(resident(process) for process in readers))
            self.held.append(held())


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_long_training_leaks_nothing(task, shapes, tmp_path):
    name = dict(detection='hire_mlp_mask_rcnn_shapes', segmentation='hire_mlp_upernet_shapes')[task]
    cfg = read_config(thin_config(f'{task}/{name}', tmp_path), data_root=shapes)
    cfg.launcher = 'none'
    cfg.train_dataloader.update(num_workers=2, persistent_workers=True)
    cfg.train_dataloader.dataset.pipeline.insert(2, RESIZE)
    cfg.val_dataloader.update(num_workers=2, persistent_workers=False)
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    cfg.train_cfg = dict(type='mlp_dense.IterLoop', max_iters=ITERATIONS, val_interval=VALIDATE)
    cfg.param_scheduler = []
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=VALIDATE)
    cfg.log_processor.by_epoch = False
    set_work_dir(cfg, tmp_path / 'run')
    for_training(cfg, seed=0)
    before, watch = held(), Watch()
    runner = build_runner(cfg, ('train', 'val'))
    runner.register_hook(watch)
    runner.train()
    del runner
    after = held()

    first, last = mean(watch.memory[WARM_UP // LOOK :][:5]), mean(watch.memory[-5:])
    growth = last / first - 1
    files = [counts['files'] for counts in watch.held[WARM_UP // LOOK :]]  # also those of batches in transfer
    print(
        f'\n{task}: {first:.0f} MB after {WARM_UP} iterations, {last:.0f} MB after {ITERATIONS} ({growth:+.1%})\n'
        f'    files    {files}\n    before   {before}\n    after    {after}'
    )
    assert growth < 0.03
    assert len(watch.memory) == ITERATIONS // LOOK and len(watch.readers) == 2
    assert {counts['processes'] for counts in watch.held} == {2}
    assert min(files[len(files) // 2 :]) <= min(files[: len(files) // 2]) + 5
    assert after['processes'] == before['processes'] and after['shared_memory'] <= before['shared_memory']
    assert after['files'] <= before['files'] + 2  # the log
