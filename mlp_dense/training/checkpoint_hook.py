"""Checkpoints of a training: atomic, sufficient for an exact resume, and removed only after a newer one exists."""

import hashlib
import io
import logging
import math
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mmengine.hooks
import torch
from mmengine.config import Config
from mmengine.dist import is_main_process, master_only
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log

from ..checkpoints.atomic import BETWEEN, newest_checkpoint, remove_unfinished, step_in, write_whole
from ..checkpoints.reading import Checkpoint
from ..config.config_file import setting
from ..errors import UserError
from ..registry import HOOKS
from .resume_hook import training_state


class WholeFiles(LocalBackend):
    """A file backend of mmengine that writes local files atomically."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_whole(Path(filepath), obj)


register_backend('mlp_dense', WholeFiles, force=True)


@HOOKS.register_module()
class CheckpointHook(mmengine.hooks.CheckpointHook):
    """A CheckpointHook of mmengine for local files that also saves every `minutes` and before a stop.

    Files are atomic (``checkpoints/atomic.py``). The hook removes older files only after a newer one exists, and only
    files with names of its own, directly in its folder. After SIGTERM or SIGINT it finishes the iteration, saves a
    checkpoint and exits with 128 plus the number of the signal, as a shell does: 143 or 130. A second signal stops the
    process immediately.
    """

    def __init__(self, *args: Any, minutes: float | None = None, backend_args: dict | None = None, **kwargs: Any):
        if backend_args or '://' in str(kwargs.get('out_dir')):
            raise UserError(
                'mlp_dense.CheckpointHook writes local files only; for backend_args or a remote out_dir set '
                "default_hooks.checkpoint.type='CheckpointHook'."
            )
        super().__init__(*args, **kwargs, backend_args=dict(backend='mlp_dense'))
        self.minutes = minutes
        self.stop_signal = 0  # the number of a signal
        self.saved_at = self.validated_at = -1  # iterations

    def before_train(self, runner: Any) -> None:
        # A checkpoint may name files of another machine or folder: do not trust these names.
        info = runner.message_hub.runtime_info
        names = {key: info.pop(key) for key in list(info) if re.match('best_ckpt|last_ckpt|keep_ckpt_ids', key)}
        super().before_train(runner)
        self.folder = Path(self.out_dir)
        for key, name in names.items():
            if key.startswith('best_ckpt') and (path := self.folder / Path(str(name)).name).is_file():
                info[key] = str(path)
        if is_main_process():
            remove_unfinished(self.folder)
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.group = torch.distributed.new_group(backend='gloo') if several else None  # for messages without a GPU
        self.saved_time = time.monotonic()
        if runner._resume and (file := runner._load_from) and Path(file).resolve().parent == self.folder.resolve():
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
        if 'optimizer' in checkpoint:
            checkpoint['mlp_dense_state'] = self.state

    def after_train(self, runner: Any) -> None:
        info = runner.message_hub.runtime_info
        for key in ('last_ckpt', *(key for key in info if key.startswith('best_ckpt'))):
            if self.published_keys and key in info:
                self._publish(runner, Path(info[key]))

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
        if self.group is None:
            return list(values)
        greatest = torch.tensor(values)
        torch.distributed.all_reduce(greatest, torch.distributed.ReduceOp.MAX, group=self.group)
        return greatest.tolist()

    def _stop(self, runner: Any, number: int) -> None:
        if number:
            runner.logger.warning(
                f'Stopped by {signal.Signals(number).name}: {self.last_ckpt} is complete; '
                'resume with the same command and --resume.'
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
        backend = dict(backend_args=self.backend_args, by_epoch=self.by_epoch)
        runner.save_checkpoint(self.out_dir, name, **parts, **backend, **self.args)
        self.saved_at, self.saved_time = meta['iter'], time.monotonic()
        if not is_main_process():
            return
        write_whole(Path(runner.work_dir, 'last_checkpoint'), self.last_ckpt.encode())
        if name != BETWEEN:
            (self.folder / BETWEEN).unlink(missing_ok=True)
            # Greater steps belong to a training that was not resumed from its end.
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
            score, best = metrics.get(key), info.get(f'best_score{suffix}', self.init_value_map[rule])
            if score is None or not math.isfinite(score) or not self.is_better_than[key](score, best):
                continue
            prefix = f'best_{key}_'.replace('/', '_')
            path = self.folder / f'{prefix}{self.filename_tmpl.format(step)}'
            runner.message_hub.update_info_dict({f'best_score{suffix}': score, f'best_ckpt{suffix}': str(path)})
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            args = dict(backend_args=self.backend_args, by_epoch=False, meta=meta)
            runner.save_checkpoint(self.out_dir, path.name, save_optimizer=False, save_param_scheduler=False, **args)
            runner.logger.info(f'{path.name} is the best so far: {key} {score:.4f}')
            for _, older in self._saved(prefix) if is_main_process() else []:
                if older != path:
                    older.unlink(missing_ok=True)

    def _saved(self, prefix: str) -> list[tuple[int, Path]]:
        """Return the steps and files with a prefix that this hook names, the last one first."""
        steps = ((step_in(path.name, prefix + self.filename_tmpl), path) for path in self.folder.iterdir())
        files = [(step, path) for step, path in steps if step is not None and path.is_file() and not path.is_symlink()]
        return sorted(files, reverse=True)

    @master_only
    def _publish(self, runner: Any, path: Path) -> None:
        content = {key: value for key, value in Checkpoint.read(path).content.items() if key in self.published_keys}
        buffer = io.BytesIO()
        torch.save(content, buffer)
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()[:8]
        write_whole(path.with_name(f'{path.stem}-{digest}.pth'), buffer.getvalue())
        runner.logger.info(f'{path.name} is published as {path.stem}-{digest}.pth')


def resume_from(cfg: Config) -> None:
    """Set `load_from` of a config that resumes, by default the newest checkpoint in its work dir, and its seed.

    The order of the data depends on the seed, before the checkpoint is loaded.
    """
    file = cfg.get('load_from')
    if file is None:
        file, skipped = newest_checkpoint(Path(cfg.work_dir), setting(cfg, 'default_hooks.checkpoint.filename_tmpl'))
        for reason in skipped:
            print_log(f'Skipped: {reason}', logger='current', level=logging.WARNING)
    cfg.load_from, cfg.resume = file and str(file), file is not None
    if file is None:
        print_log(f'There is nothing to resume in {cfg.work_dir}: the training starts anew.', logger='current')
        return
    meta = Checkpoint.read(file).content.get('meta')
    if isinstance(meta, dict) and isinstance(seed := meta.get('seed'), int):
        cfg.randomness = dict(cfg.get('randomness', {}), seed=seed)
