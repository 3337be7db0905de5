"""Hooks of tests, and the hook of mixtures of experts."""

import os
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from ..backbones.experts import Experts
from ..backbones.fusion import fuse
from ..datasets.layout import image_folder, leaves
from ..registry import HOOKS
from ..tasks import task_of
from ..visualization.drawing import draw_labels
from .machine import unwrapped

DEAD = 0.01
"""An expert that receives less than this fraction of an even share is dead."""


@HOOKS.register_module()
class FuseHook(Hook):
    """Replaces the model by its fused copy (:func:`mlp_dense.fuse`) before a test."""

    def before_test(self, runner: Any) -> None:
        owner, name = (runner.model, 'module') if is_model_wrapper(runner.model) else (runner, 'model')
        setattr(owner, name, fuse(getattr(owner, name)))


@HOOKS.register_module()
class BalanceHook(Hook):
    """Scaling and logging of the balancing losses of mixtures of experts.

    The losses get the factor of the training's loss: fp16 multiplies it, accumulated gradients divide it. Their sum is
    logged as `loss_balance`. Every `interval` iterations the hook writes the share of the items of each expert
    (``expert/MODULE/NUMBER``, for tools/plot_log.py), and warns of dead experts.
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
    """Draws each tested image into a folder, its ground truth on the left and its predictions on the right.

    Objects need a score above `score_thr`. Small images are enlarged.
    """

    def __init__(self, out_dir: str, score_thr: float = 0.3):
        self.out_dir, self.score_thr = Path(out_dir), score_thr

    def after_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        dataset = runner.test_dataloader.dataset  # only the first process has a visualizer with classes
        task, meta = task_of(runner.cfg.default_scope), dataset.metainfo
        for sample in outputs or ():
            image = _image(sample.img_path, dataset, task.flag)
            labels = task.labels_of(sample, 'gt'), task.labels_of(sample, 'pred', self.score_thr)
            above = f' with a score above {self.score_thr:g}' if 'scores' in labels[1] else ''
            drawn = draw_labels(image, labels, task.draw, meta, captions=('ground truth', f'predictions{above}'))
            name = _below_its_root(Path(sample.img_path), dataset).with_suffix('.png')
            mmcv.imwrite(drawn[..., ::-1], str(self.out_dir / name))


def _image(path: str, dataset: Any, flag: str) -> np.ndarray:
    """Return the RGB image of a path, or of a name in the archive of a data set."""
    if hasattr(dataset, 'bytes_of'):
        return mmcv.imfrombytes(dataset.bytes_of(path), flag, channel_order='rgb')
    return mmcv.imread(path, flag, channel_order='rgb')


def _below_its_root(image: Path, dataset: Any) -> Path:
    """Return the path of an image below the common folder of all images, so that equal names stay distinct."""
    roots = {os.path.abspath(folder) for leaf in leaves(dataset) if (folder := image_folder(leaf))}
    image = Path(os.path.abspath(image))
    root = os.path.commonpath(roots) if roots else image.parent
    return image.relative_to(root) if image.is_relative_to(root) else Path(image.name)
