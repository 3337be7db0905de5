"""Checkpoints of a training run: atomic, sufficient for an exact resume, and removed only after a newer one exists."""

import logging
import math
import random
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mmengine.hooks
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import all_gather_object, all_reduce, get_rank, get_world_size, is_distributed, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop

from ..checkpoints.atomic import BETWEEN, newest_checkpoint, remove_unfinished, step_in, write_whole
from ..checkpoints.reading import Checkpoint
from ..config.config_file import setting
from ..errors import CheckpointError, UserError, counted
from ..mmengine_privates import loaded_file, reset_steps, resumes, set_iteration, update_val_interval
from ..registry import HOOKS
from .data_order import random_states, set_random_states
from .loops import validates
from .machine import unwrapped
from .trained_with import KEY, trained_with


class WholeFiles(LocalBackend):
    """A file backend of mmengine that writes local files atomically."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_whole(Path(filepath), obj)


register_backend('mlp_dense', WholeFiles, force=True)


@HOOKS.register_module()
class CheckpointHook(mmengine.hooks.CheckpointHook):
    """A CheckpointHook of mmengine for local files that also saves every `minutes` and before a stop.

    The hook removes only files with names of its own, directly in its folder. After SIGTERM or SIGINT it finishes the
    iteration, saves a checkpoint and exits as a shell does, with 143 or 130. A second signal stops the process at once.
    """

    def __init__(self, *args: Any, minutes: float | None = None, backend_args: dict | None = None, **kwargs: Any):
        backends = [setting for setting in (backend_args, kwargs.pop('file_client_args', None)) if setting]
        is_remote = any(setting.get('backend') not in ('local', 'disk') for setting in backends)
        if is_remote or kwargs.get('published_keys') or '://' in str(kwargs.get('out_dir')):
            raise UserError(
                'mlp_dense.CheckpointHook writes complete local files only; for a remote backend or out_dir set '
                "default_hooks.checkpoint.type='CheckpointHook', for published_keys use mlp-dense checkpoint publish."
            )
        super().__init__(*args, **kwargs, backend_args=dict(backend='mlp_dense'))
        self.minutes = minutes
        self.stop_signal = 0  # the number of a signal
        self.saved_at = self.validated_at = -1  # iterations

    def before_train(self, runner: Any) -> None:
        self.folder = Path(self.out_dir, Path(runner.work_dir).name) if self.out_dir else Path(runner.work_dir)
        info = runner.message_hub.runtime_info
        for key in [key for key in info if key.startswith('best_ckpt')]:
            path = self.folder / Path(str(info.pop(key))).name  # the checkpoint may be of another machine or folder
            if path.is_file():
                info[key] = str(path)
        if is_main_process():
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_unfinished(self.folder)
        self.group = torch.distributed.new_group(backend='gloo') if is_distributed() else None  # messages skip the GPU
        self.saved_time = time.monotonic()
        if resumes(runner) and (file := loaded_file(runner)) and Path(file).resolve().parent == self.folder.resolve():
            self.last_ckpt, self.saved_at = str(self.folder / Path(file).name), runner.iter

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        is_late = time.monotonic() - self.saved_time >= 60 * (self.minutes or math.inf)
        stop, late = self._agreed(self.stop_signal, is_late)
        if (stop or late) and self.saved_at != runner.iter + 1:
            self._save(runner, BETWEEN, dict(epoch=runner.epoch, iter=runner.iter + 1))
        self._stop(runner, stop)

    def after_val_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        (stop,) = self._agreed(self.stop_signal)
        if self.saved_at == runner.iter:  # otherwise stop after the next iteration of the training
            self._stop(runner, stop)

    def after_val_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        self.validated_at = runner.iter
        super().after_val_epoch(runner, metrics or {})
        if self.saved_at == runner.iter:  # save again: now the checkpoint records the best score and this validation
            self._save(runner, Path(self.last_ckpt).name, dict(epoch=runner.epoch, iter=runner.iter))

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        checkpoint['meta'][KEY] = trained_with(runner.cfg)
        if 'optimizer' in checkpoint:
            checkpoint['mlp_dense_state'] = self.state

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT end the training after an iteration while the context is active."""

        def handle(number: int, frame: Any) -> None:
            if self.stop_signal:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            self.stop_signal = number

        numbers = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
        before = {number: signal.signal(number, handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _agreed(self, *values: int) -> list[int]:
        """Return the maximum of each value over all processes, so that all of them act alike."""
        greatest = torch.tensor(values)
        all_reduce(greatest, 'max', self.group)
        return greatest.tolist()

    def _stop(self, runner: Any, number: int) -> None:
        if number:
            runner.logger.warning(
                f'Stopped by {signal.Signals(number).name}: {self.last_ckpt} is complete; '
                'resume with the same command, all its options and --resume.'
            )
            raise SystemExit(128 + number)

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict) -> None:
        self._save(runner, self.filename_tmpl.format(step), meta)

    def _save(self, runner: Any, name: str, meta: dict) -> None:
        """Save a checkpoint, write `last_checkpoint`, and remove the checkpoints that are no longer needed."""
        self.state = training_state(runner, validated=self.validated_at == meta['iter'])
        self.last_ckpt = str(self.folder / name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        parts = dict(save_optimizer=self.save_optimizer, save_param_scheduler=self.save_param_scheduler, meta=meta)
        runner.save_checkpoint(str(self.folder), name, backend_args=self.backend_args, **parts, **self.args)
        self.saved_at, self.saved_time = meta['iter'], time.monotonic()
        if not is_main_process():
            return
        write_whole(Path(runner.work_dir, 'last_checkpoint'), self.last_ckpt.encode())
        if name != BETWEEN:
            (self.folder / BETWEEN).unlink(missing_ok=True)
            # Greater steps belong to a training run that was not resumed from its end.
            last = step_in(name, self.filename_tmpl) or 0
            paths = [path for step, path in self._saved('') if step <= last]
            for path in paths[self.max_keep_ckpts :] if self.max_keep_ckpts > 0 else []:
                path.unlink(missing_ok=True)

    def _save_best_checkpoint(self, runner: Any, metrics: dict) -> None:
        if not self.save_best:
            return
        if 'auto' in self.key_indicators:
            self._init_rule(self.rules, [next(iter(metrics))])
        step = runner.epoch if self.by_epoch else runner.iter
        info = runner.message_hub.runtime_info
        for key, rule in zip(self.key_indicators, self.rules, strict=True):
            suffix = f'_{key}' if len(self.key_indicators) > 1 else ''
            if key not in metrics:
                raise UserError(f'default_hooks.checkpoint.save_best is {key}; set it to one of {", ".join(metrics)}.')
            score, best = metrics[key], info.get(f'best_score{suffix}', self.init_value_map[rule])
            if score is None or not math.isfinite(score) or not self.is_better_than[key](score, best):
                continue
            prefix = f'best_{key}_'.replace('/', '_')
            path = self.folder / f'{prefix}{self.filename_tmpl.format(step)}'
            runner.message_hub.update_info_dict({f'best_score{suffix}': score, f'best_ckpt{suffix}': str(path)})
            parts = dict(save_optimizer=False, save_param_scheduler=False, backend_args=self.backend_args)
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            runner.save_checkpoint(str(self.folder), path.name, meta=meta, **parts)
            runner.logger.info(f'{path.name} is the best so far: {key} {score:.4f}')
            for _, older in self._saved(prefix) if is_main_process() else []:
                if older != path:
                    older.unlink(missing_ok=True)

    def _saved(self, prefix: str) -> list[tuple[int, Path]]:
        """Return the steps and files that this hook named, with a prefix, the last one first."""
        steps = ((step_in(path.name, prefix + self.filename_tmpl), path) for path in self.folder.iterdir())
        files = [(step, path) for step, path in steps if step is not None and path.is_file() and not path.is_symlink()]
        return sorted(files, reverse=True)


@HOOKS.register_module()
class ResumeHook(mmengine.hooks.Hook):
    """Restores the state of a checkpoint before a resumed training run, and the random states after each validation."""

    priority = 95  # after CheckpointHook, before ConsoleHook
    state: Mapping[str, Any] = {}

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        if resumes(runner):
            self.state = checkpoint.get('mlp_dense_state') or {}
            if not self.state:
                runner.logger.warning(
                    'The checkpoint contains no random states, like those of other tools: '
                    'this training run will differ from an uninterrupted one.'
                )

    def before_train(self, runner: Any) -> None:
        if rank := get_rank():  # otherwise all processes draw the same random numbers for their different images
            seeds = np.random.SeedSequence((runner.seed, rank)).generate_state(3)
            random.seed(int(seeds[0]))
            np.random.seed(seeds[1])
            torch.manual_seed(int(seeds[2]))
        if not self.state:
            return
        loop, before = runner.train_loop, (len(self.state['processes']), self.state['batches'])
        if before != (now := (get_world_size(), len(loop.dataloader))):
            self._fit(runner, before, now)
        else:
            gradients = self.state['processes'][get_rank()].get('gradients', {})
            for name, parameter in unwrapped(runner.model).named_parameters():
                if name in gradients:
                    parameter.grad = gradients[name].to(parameter.device)
        self._restore()
        update_val_interval(loop)
        if runner.val_loop and validates(loop) and not self.state['validated']:
            runner.val_loop.run()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self._restore()  # again, since the start of the loop may have drawn random numbers
        self.state = {}

    def _restore(self) -> None:
        if self.state and len(self.state['processes']) == get_world_size():
            set_random_states(self.state['processes'][get_rank()])

    def before_val(self, runner: Any) -> None:
        self.kept = random_states()  # a validation must not change the training

    def after_val(self, runner: Any) -> None:
        set_random_states(self.kept)

    def _fit(self, runner: Any, before: tuple[int, int], now: tuple[int, int]) -> None:
        """Continue with another number of processes or images per batch; refuse it within an epoch."""
        loop = runner.train_loop
        old, new = (f'{counted(processes, "process")} with {counted(n, "batch")}' for processes, n in (before, now))
        if isinstance(loop, EpochBasedTrainLoop):
            epochs, within = divmod(loop.iter, before[1])
            if within:
                raise CheckpointError(
                    f'This checkpoint was saved within an epoch of {old}, which {new} cannot resume; '
                    'use as many processes and images per batch, or resume from a checkpoint at the end of an epoch.'
                )
            set_iteration(loop, epochs * now[1])
            _replay_schedules(runner, epochs, now[1])
        runner.logger.warning(
            f'Resumed with {new} instead of {old}: the learning rate is not scaled, and the order and random numbers '
            'from now on differ from those of an uninterrupted run.'
        )


def _replay_schedules(runner: Any, epochs: int, batches: int) -> None:
    """Step new schedules through past epochs; otherwise those that count iterations would end early or never."""
    schedulers = runner.param_schedulers
    known = isinstance(schedulers, list) and not any(hasattr(scheduler, 'monitor') for scheduler in schedulers)
    if not known or all(scheduler.by_epoch for scheduler in schedulers):
        return
    for group in runner.optim_wrapper.param_groups:
        group['lr'] = group['initial_lr']
    runner.param_schedulers = runner.build_param_scheduler(runner.cfg.param_scheduler)
    reset_steps(runner.optim_wrapper)
    for iteration in range(1, epochs * batches + 1):
        for scheduler in sorted(runner.param_schedulers, key=lambda scheduler: scheduler.by_epoch):  # as mmengine does
            if not scheduler.by_epoch or iteration % batches == 0:
                scheduler.step()


def training_state(runner: Any, validated: bool) -> dict[str, Any]:
    """Return random states of all processes, accumulated gradients and `validated`, as builtin types and tensors."""
    state = random_states()
    if not getattr(runner.optim_wrapper, 'should_update', lambda: True)():
        parameters = unwrapped(runner.model).named_parameters()
        state['gradients'] = {name: p.grad.cpu() for name, p in parameters if p.grad is not None}
    return dict(processes=all_gather_object(state), batches=len(runner.train_dataloader), validated=validated)


def resume_from(cfg: Config, start: str | None = None) -> None:
    """Set `load_from` (default: the newest checkpoint in the work dir) and the seed of a config that resumes.

    The config needs the seed because the runner builds the order of the data before it loads the checkpoint. Without a
    checkpoint, training starts from the weights `start`.
    """
    file = cfg.get('load_from')
    if file is None:
        file, skipped = newest_checkpoint(Path(cfg.work_dir), setting(cfg, 'default_hooks.checkpoint.filename_tmpl'))
        for reason in skipped:
            print_log(f'Skipped: {reason}', logger='current', level=logging.WARNING)
    cfg.load_from, cfg.resume = str(file) if file else start, file is not None
    if file is None:
        print_log(f'There is nothing to resume in {cfg.work_dir}: a new training run starts.', logger='current')
        return
    meta = Checkpoint.read(file).content.get('meta')
    if isinstance(meta, dict) and isinstance(seed := meta.get('seed'), int):
        cfg.randomness = dict(cfg.get('randomness', {}), seed=seed)
