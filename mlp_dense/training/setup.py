"""Adapting a config to a training or a test that a command line asks for."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from ..checkpoints.atomic import checkpoints_in
from ..checks.data_config import dataset_meta
from ..config.reading import Edits, enter_scope, evaluators, leaves, need
from ..config.scaling import set_duration, set_image_sizes
from ..config.validation import check_backends
from ..errors import UserError
from ..tasks import task_of
from .checkpoint_hook import resume_from
from .report_hook import leave_results

EXPORTED = ('.onnx', '.pt2')
"""What the names of exported models end in."""


def shrink(
    cfg: Config,
    loaders: Sequence[str],
    img_scale: Sequence[int] | None = None,
    crop_size: Sequence[int] | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    epochs: int | None = None,
    iters: int | None = None,
) -> list[str]:
    """Changes the sizes of a run wherever a config has them: see ``tools/train.py --help``.

    Args:
        loaders: ``train``, ``val``, ``test``: those whose images and processes change; `batch_size` is that of the
            first.

    Returns:
        A line for each change: dotted path, old and new value.

    Raises:
        UserError: a value is impossible, or the config has nothing that it could change.
    """
    edits = Edits()
    need(cfg, 'model', f'{loaders[0]}_dataloader')
    set_image_sizes(edits, cfg, loaders, img_scale, crop_size)
    if batch_size is not None:
        if batch_size < 1:
            raise UserError(f'--batch-size {batch_size}: give 1 image or more.')
        edits.set(cfg[f'{loaders[0]}_dataloader'], 'batch_size', batch_size, f'{loaders[0]}_dataloader.batch_size')
    if workers is not None:
        if workers < 0:
            raise UserError(f'--workers {workers}: give 0 or more; with 0 the run loads its images itself.')
        for name in loaders:
            _set_workers(edits, cfg.get(f'{name}_dataloader'), workers, f'{name}_dataloader')
    set_duration(edits, cfg, epochs, iters)
    return edits.lines


def _set_workers(edits: Edits, loader: Any, workers: int, path: str) -> None:
    if not loader:
        return
    edits.set(loader, 'num_workers', workers, f'{path}.num_workers')
    if not workers:  # PyTorch refuses what only processes have
        for key in ('persistent_workers', 'prefetch_factor'):
            if loader.get(key):
                edits.remove(loader, key, f'{path}.{key}')


def for_training(
    cfg: Config,
    resume: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    seed: int | None = None,
    deterministic: bool = False,
) -> None:
    """Adapts a config, whose work dir is set, to a training: see ``tools/train.py --help``. UserError: it cannot be
    trained so, nothing can be resumed, or something would be overwritten."""
    need(cfg, 'model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
    check_backends(cfg)
    hook = cfg.get('default_hooks', {}).get('checkpoint', {})
    if hook.get('type') == 'CheckpointHook' and not hook.get('backend_args') and '://' not in str(hook.get('out_dir')):
        hook.type = 'mlp_dense.CheckpointHook'
    if resume or cfg.get('resume'):
        resume_from(cfg, resume)
    elif found := [*checkpoints_in(Path(cfg.work_dir)), *Path(cfg.work_dir).glob('last_checkpoint')]:
        there = f'{cfg.work_dir} holds a training already ({found[0].name})'
        raise UserError(f'{there}: go on with --resume, or give another --work-dir.')
    if amp:
        if not torch.cuda.is_available():
            raise UserError('--amp needs a GPU, and PyTorch finds none; leave it out to train on the CPU.')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise UserError(f'--auto-scale-lr: {cfg.filename} has no auto_scale_lr.base_batch_size to scale by.')
        cfg.auto_scale_lr.enable = True
    if seed is not None:
        cfg.randomness = dict(cfg.get('randomness', {}), seed=seed)
    if deterministic:
        cfg.randomness = dict(cfg.get('randomness', {}), deterministic=True)
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # without it cuBLAS refuses


def for_test(
    cfg: Config,
    checkpoint: str,
    tta: bool = False,
    fuse: bool = False,
    show_dir: str = '',
    out: str = '',
    score_thr: float = 0.3,
    report: str = '',
) -> None:
    """Adapts a config to the test of a checkpoint: see ``tools/test.py --help``. UserError: it cannot be tested so."""
    need(cfg, 'model', 'test_dataloader', 'test_cfg')
    check_backends(cfg)
    if not evaluators(cfg, 'test'):
        raise UserError(f'{cfg.filename} has no test_evaluator, so there is nothing to measure.')
    cfg.load_from, cfg.resume = checkpoint, False
    if is_exported(checkpoint):
        if fuse or cfg.launcher != 'none':
            wrong = '--fuse' if fuse else '--launcher'
            raise UserError(f'{wrong}: {checkpoint} is exported; leave it out (tools/export.py --fuse fuses before).')
        enter_scope(cfg)
        run_exported(cfg, checkpoint, dataset_meta(cfg.test_dataloader.dataset).get('classes'))
        cfg.load_from = None
    if tta:
        if not cfg.get('tta_model') or not cfg.get('tta_pipeline'):
            raise UserError('--tta: this config has no tta_model and tta_pipeline.')
        for dataset in leaves(cfg.test_dataloader.dataset):
            dataset.pipeline = cfg.tta_pipeline
        cfg.model = dict(**cfg.tta_model, module=cfg.model)
    cfg.get('default_hooks', {}).pop('visualization', None)  # draws during a training
    cfg.setdefault('custom_hooks', [])
    if not 0 <= score_thr <= 1:
        raise UserError(f'--score-thr is {score_thr}; give a number from 0 to 1.')
    if show_dir:
        cfg.custom_hooks.append(dict(type='mlp_dense.DrawPredictionsHook', out_dir=show_dir, score_thr=score_thr))
    if fuse:
        cfg.custom_hooks.append(dict(type='mlp_dense.FuseHook', priority='LOWEST'))
    if out:
        task = task_of(cfg.default_scope)
        if Path(out).suffix.lower() not in task.dumped_as:
            raise UserError(f'--out {out}: for this config give a file that ends in {" or ".join(task.dumped_as)}.')
        dump = dict(type=task.dump, out_file_path=out)
        cfg.test_evaluator = [*evaluators(cfg, 'test'), dump]
    if report:
        leave_results(cfg, Path(report))


def is_exported(file: str | Path | None) -> bool:
    """Whether a name is that of a model which tools/export.py wrote, rather than of a checkpoint."""
    return Path(str(file or '')).suffix.lower() in EXPORTED


def run_exported(cfg: Config, file: str | Path, classes: Sequence[str] | None = None) -> None:
    """Puts an exported model, of some classes if they are given, in the place of the model of a config. UserError:
    there are none of this task."""
    kind = task_of(cfg.default_scope).exported
    if kind is None:
        raise UserError(f'{file}: whole models of {cfg.default_scope} are not exported; give a checkpoint.')
    cfg.model = dict(type=kind, file=str(file), model=cfg.model, classes=classes)
