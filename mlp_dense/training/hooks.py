"""Hooks of tests, of mixtures of experts, and the record of a training."""

import json
import os
import shlex
import sys
import uuid
from pathlib import Path
from statistics import median
from typing import Any

import mmcv
import torch
from mmengine.dist import all_reduce, master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.utils import get_git_hash

from .. import operators
from ..backbones.experts import Experts
from ..backbones.fusion import fuse
from ..checks.band_agreement import band_count
from ..config.config_file import evaluators
from ..datasets.bands import multi_band_loader
from ..datasets.image_files import write_image
from ..datasets.layout import image_folder, leaves
from ..registry import HOOKS
from ..reports.results import Results, without_undefined
from ..tasks import task_of
from ..visualization.drawing import draw_labels
from .machine import seconds_now, unwrapped, versions

DEAD = 0.01  # an expert that receives less than this fraction of an even share is dead


@HOOKS.register_module()
class FuseHook(Hook):
    """Replaces the model by its fused copy (:func:`mlp_dense.fuse`) before a test."""

    def before_test(self, runner: Any) -> None:
        owner, name = (runner.model, 'module') if is_model_wrapper(runner.model) else (runner, 'model')
        setattr(owner, name, fuse(getattr(owner, name)))


@HOOKS.register_module()
class RunHook(Hook):
    """Writes ``run.json`` next to the log of a training, and its id as ``meta['run_id']`` into every checkpoint."""

    priority = 'VERY_HIGH'  # before any hook saves a checkpoint

    @master_only
    def before_train(self, runner: Any) -> None:
        self.run_id = f'{runner.timestamp}-{uuid.uuid4().hex[:8]}'
        record = dict(
            run_id=self.run_id,
            command=shlex.join(sys.argv),
            folder=str(Path.cwd()),
            processes=runner.world_size,
            seed=runner.seed,
            deterministic=runner.deterministic,
            git=get_git_hash(),
            versions=versions(),
            operators=operators.running(),
            config=runner.cfg.to_dict(),
        )
        text = json.dumps(record, indent=2, default=str)
        Path(runner.log_dir, 'run.json').write_text(f'{text}\n', encoding='utf-8')

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        checkpoint['meta']['run_id'] = self.run_id


@HOOKS.register_module()
class BalanceHook(Hook):
    """Scaling of the balancing losses of mixtures of experts, by the factors of fp16 and of accumulated gradients.

    Their sum is logged as `loss_balance`. Every `interval` iterations the hook writes the share of the items of each
    expert (``expert/MODULE/NUMBER``, for tools/plot_log.py), and warns of dead experts.
    """

    priority = 'HIGH'

    def __init__(self, interval: int = 50):
        self.interval = interval

    def before_train(self, runner: Any) -> None:
        modules = unwrapped(runner.model).named_modules()
        self.experts = {name: module for name, module in modules if isinstance(module, Experts)}
        self.shares = {name: torch.zeros_like(module.shares) for name, module in self.experts.items()}
        self.dead: set[tuple[str, int]] = set()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        for module in self.experts.values():
            scale = runner.optim_wrapper.scale_loss(torch.ones_like(module.balance))
            scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
            module.set_loss_scale(scaler.scale(scale) if scaler else scale)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self.experts:
            total = sum(module.balance for module in self.experts.values())
            runner.message_hub.update_scalar('train/loss_balance', total)
            for name, module in self.experts.items():
                self.shares[name] += module.shares
            if self.every_n_train_iters(runner, self.interval):
                self._write_shares(runner)

    def _write_shares(self, runner: Any) -> None:
        scalars: dict[str, float] = {}
        for name, shares in self.shares.items():
            all_reduce(shares)
            fractions = (shares / shares.sum()).tolist()
            scalars |= {f'expert/{name}/{i}': fraction for i, fraction in enumerate(fractions)}
            dead = {(name, i) for i, fraction in enumerate(fractions) if fraction * len(fractions) < DEAD} - self.dead
            for _, i in sorted(dead):
                runner.logger.warning(
                    f'Expert {i} of {len(fractions)} in {name} is dead: it received {100 * fractions[i]:.2g} % of the '
                    f'items in {self.interval} iterations. Use a lower learning rate or a longer warm-up.'
                )
            self.dead |= dead
            shares.zero_()
        runner.visualizer.add_scalars(dict(scalars, iter=runner.iter + 1), step=runner.iter + 1)

    def after_train(self, runner: Any) -> None:
        for module in self.experts.values():
            module.set_loss_scale(1.0)


@HOOKS.register_module()
class DrawPredictionsHook(Hook):
    """Draws the ground truth of each tested image next to its predictions, those with a score above `score_thr`."""

    def __init__(self, out_dir: str, score_thr: float = 0.3):
        self.out_dir, self.score_thr = Path(out_dir), score_thr

    def before_test(self, runner: Any) -> None:
        folders = filter(None, map(image_folder, leaves(runner.test_dataloader.dataset)))
        paths = [os.path.abspath(folder) for folder in folders]
        self.root = os.path.commonpath(paths) if paths else ''
        self.loader = multi_band_loader(_test_pipeline(runner))

    def after_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        dataset = runner.test_dataloader.dataset  # only the first process has a visualizer with classes
        task, meta = task_of(runner.cfg.default_scope), dataset.metainfo
        for sample in outputs or ():
            path = Path(os.path.abspath(sample.img_path))
            if self.loader is not None:
                image = self.loader.rgb(self.loader.read(path))
            else:
                content = dataset.bytes_of(path) if hasattr(dataset, 'bytes_of') else path.read_bytes()
                image = mmcv.imfrombytes(content, task.flag, channel_order='rgb')
            labels = task.labels_of(sample, 'gt'), task.labels_of(sample, 'pred', self.score_thr)
            above = f' with a score above {self.score_thr:g}' if 'scores' in labels[1] else ''
            drawn = draw_labels(image, labels, task.draw, meta, captions=('ground truth', f'predictions{above}'))
            # below their common folder, images of equal names stay distinct
            name = path.relative_to(self.root) if path.is_relative_to(self.root) else Path(path.name)
            write_image(self.out_dir / name.with_suffix('.png'), drawn[..., ::-1])


def _test_pipeline(runner: Any) -> list:
    return next(leaves(runner.cfg.test_dataloader.dataset)).get('pipeline') or []


@HOOKS.register_module()
class ResultsHook(Hook):
    """Measures the forward passes of a test and writes ``results/run.json`` (tools/test.py --report)."""

    def __init__(self, folder: str):
        self.folder = Path(folder)
        self.times: list[float] = []  # milliseconds an image

    def before_test_epoch(self, runner: Any) -> None:  # not before_test, which may fuse the model
        model = unwrapped(runner.model)
        before = model.register_forward_pre_hook(self._start, with_kwargs=True)
        self.handles = before, model.register_forward_hook(self._stop)

    def _start(self, model: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        inputs = kwargs['inputs'] if 'inputs' in kwargs else args[0]
        self.images = len(inputs)
        self.size = tuple(inputs.shape[-2:]) if isinstance(inputs, torch.Tensor) else None
        self.times.append(seconds_now())

    def _stop(self, *_: Any) -> None:
        self.times[-1] = 1000 * (seconds_now() - self.times[-1]) / self.images

    @master_only
    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        for handle in self.handles:
            handle.remove()
        cfg, dataset = runner.cfg, next(leaves(runner.test_dataloader.dataset))
        metrics_of_test = evaluators(cfg, 'test')
        coco: dict = next((metric for metric in metrics_of_test if metric.get('outfile_prefix')), {})
        ignored = [metric.ignore_index for metric in metrics_of_test if 'ignore_index' in metric]
        parameters, tested = list(unwrapped(runner.model).parameters()), cfg.model.get('module', cfg.model)
        speed = {f'ms an image ({parameters[0].device.type if parameters else "cpu"})': median(self.times)}
        loader = multi_band_loader(_test_pipeline(runner))
        loading = {} if loader is None else dict(channels=loader.channels, show=loader.bands_shown(band_count(cfg)))
        size = {} if 'file' in tested else {'million parameters': sum(p.numel() for p in parameters) / 1e6}
        Results(
            name=Path(cfg.filename).stem,
            task=task_of(cfg.default_scope).name,
            classes=list(dataset.metainfo['classes']),
            palette=dataset.metainfo.get('palette'),
            metrics=without_undefined(metrics or {}),
            config=str(cfg.filename),
            checkpoint=str(cfg.load_from or tested.get('file')),
            images=str((image_folder(dataset) or Path()).absolute()),
            annotations=str(Path(coco['ann_file']).absolute()) if coco else '',
            crowds=coco.get('crowds', 'ignored'),
            ignore_index=ignored[0] if ignored else 255,
            size=self.size,
            loading=loading,
            model=size | speed,
            versions=versions(),
            folder=self.folder,
        ).write()
