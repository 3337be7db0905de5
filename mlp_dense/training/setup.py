"""Changes of a config for the training or test that a command line requests."""

import os
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from ..checkpoints.atomic import checkpoints_in
from ..config.config_file import Edits, enter_scope, evaluators, need, setting
from ..config.scaling import set_duration, set_image_sizes
from ..datasets.layout import dataset_meta, leaves
from ..errors import UserError, command
from ..outputs import make_folder
from ..reports.results import FOLDER
from ..tasks import task_of
from .checkpoint_hook import resume_from

EXPORTED = ('.onnx', '.pt2')  # suffixes of exported models


def shrink(
    cfg: Config,
    loaders: Sequence[str],
    img_scale: Sequence[int] | None = None,
    crop_size: Sequence[int] | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    epochs: int | None = None,
    iters: int | None = None,
    crowds: str | None = None,
) -> list[str]:
    """Change the sizes of a run wherever a config contains them; return a line for each change.

    Image sizes and workers change in all `loaders` (``train``, ``val``, ``test``), the batch size in the first of them.
    """
    edits = Edits(cfg)
    need(cfg, 'model', f'{loaders[0]}_dataloader')
    set_image_sizes(edits, loaders, img_scale, crop_size)
    if batch_size is not None:
        edits.set(cfg[f'{loaders[0]}_dataloader'], 'batch_size', batch_size)
    if workers is not None:
        for loader in filter(None, (cfg.get(f'{name}_dataloader') for name in loaders)):
            edits.set(loader, 'num_workers', workers)
            for key in ('persistent_workers', 'prefetch_factor'):
                if not workers and loader.get(key):  # PyTorch refuses them without loading processes
                    edits.set(loader, key, None)
    set_duration(edits, epochs, iters)
    if crowds is not None:
        for name in loaders:
            _set_crowds(edits, name, crowds)
    return edits.lines


def _set_crowds(edits: Edits, name: str, crowds: str) -> None:
    """Set `crowds` of the data sets and the metrics that read COCO's format."""
    dataset = setting(edits.cfg, f'{name}_dataloader.dataset')
    for node in [*(leaves(dataset) if dataset else ()), *evaluators(edits.cfg, name)]:
        kind = str(node.get('type')).rpartition('.')[2]
        if kind in ('CocoDataset', 'CocoMetric'):
            edits.set(node, 'type', f'mlp_dense.{kind}')
            edits.set(node, 'crowds', crowds)


def for_training(
    cfg: Config,
    resume: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    seed: int | None = None,
    deterministic: bool = False,
) -> None:
    """Change a config, whose work dir is set, for a training; refuse to overwrite another one in the work dir."""
    need(cfg, 'model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
    start, template = cfg.get('load_from'), setting(cfg, 'default_hooks.checkpoint.filename_tmpl')
    work_dir = Path(cfg.work_dir)
    if resume:
        cfg.resume, cfg.load_from = True, None if resume == 'auto' else resume
    if cfg.get('resume'):
        resume_from(cfg, start)
    elif files := [
        *checkpoints_in(work_dir, template),
        *work_dir.glob('last_checkpoint'),
        *work_dir.glob('best_*.pth'),
    ]:
        existing = f'{cfg.work_dir} contains a training already ({files[0].name})'
        raise UserError(f'{existing}: resume it with --resume, or choose another --work-dir.')
    if amp:
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
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # cuBLAS refuses to be deterministic without it
    if str(setting(cfg, 'train_cfg.type')).rpartition('.')[2] not in ('EpochLoop', 'IterLoop'):
        remedy = 'inherit _base_/exact_training.py of mlp_dense for that (docs/reliability.md)'
        print_log(f'This config does not resume exactly: {remedy}.', logger='current')


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
    """Change a config for the test of a checkpoint: see ``tools/test.py --help``."""
    need(cfg, 'model', 'test_dataloader', 'test_cfg')
    if not evaluators(cfg, 'test'):
        raise UserError(f'{cfg.filename} has no test_evaluator, so there is nothing to measure.')
    cfg.load_from, cfg.resume = checkpoint, False
    if is_exported(checkpoint):
        if fuse:
            raise UserError(f'--fuse: {checkpoint} is exported; use {command("export")} --fuse instead.')
        enter_scope(cfg)
        run_exported(cfg, checkpoint, dataset_meta(cfg.test_dataloader.dataset).get('classes'))
        cfg.load_from = None
    if tta:
        if not cfg.get('tta_model') or not cfg.get('tta_pipeline'):
            raise UserError('--tta: this config has no tta_model and tta_pipeline.')
        for dataset in leaves(cfg.test_dataloader.dataset):
            dataset.pipeline = cfg.tta_pipeline
        cfg.model = dict(**cfg.tta_model, module=cfg.model)
    cfg.get('default_hooks', {}).pop('visualization', None)  # it draws during a training
    cfg.setdefault('custom_hooks', [])
    if not 0 <= score_thr <= 1:
        raise UserError(f'--score-thr is {score_thr}; use a number from 0 to 1.')
    if show_dir:
        cfg.custom_hooks.append(dict(type='mlp_dense.DrawPredictionsHook', out_dir=show_dir, score_thr=score_thr))
    if fuse:
        cfg.custom_hooks.append(dict(type='mlp_dense.FuseHook', priority='LOWEST'))
    if out:
        task = task_of(cfg.default_scope)
        if Path(out).suffix.lower() not in task.dumped_as:
            raise UserError(f'--out {out}: for this config use a file that ends in {" or ".join(task.dumped_as)}.')
        cfg.test_evaluator = [*evaluators(cfg, 'test'), dict(type=task.dump, out_file_path=out)]
    if report:
        results = Path(report, FOLDER)
        make_folder(results)
        cfg.test_evaluator = task_of(cfg.default_scope).keep_results(evaluators(cfg, 'test'), results)
        cfg.custom_hooks.append(dict(type='mlp_dense.ResultsHook', folder=report))


def is_exported(file: str | Path | None) -> bool:
    """Whether a name is that of a model written by tools/export.py, and not of a checkpoint."""
    return Path(str(file or '')).suffix.lower() in EXPORTED


def run_exported(cfg: Config, file: str | Path, classes: Sequence[str] | None = None) -> None:
    """Replace the model of a config by an exported model, with some class names if they are passed."""
    model_type = task_of(cfg.default_scope).exported
    if model_type is None:
        raise UserError(f'{file}: complete models of {cfg.default_scope} are not exported; pass a checkpoint.')
    cfg.model = dict(type=model_type, file=str(file), model=cfg.model, classes=classes)
