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

from ..backbones.experts import Experts, set_balance_scale
from ..backbones.fusion import fuse
from ..datasets.layout import image_folder, leaves
from ..registry import HOOKS
from ..tasks import task_of
from ..visualization.drawing import draw_labels
from .machine import unwrapped

DEAD = 0.01
"""An expert is taken for dead that gets less than this part of an even share."""


@HOOKS.register_module()
class FuseHook(Hook):
    """Replaces the model by its fused copy (:func:`mlp_dense.fuse`) before a test."""

    def before_test(self, runner: Any) -> None:
        owner, name = (runner.model, 'module') if is_model_wrapper(runner.model) else (runner, 'model')
        setattr(owner, name, fuse(getattr(owner, name)))


@HOOKS.register_module()
class BalanceHook(Hook):
    """Has the balancing losses of mixtures of experts follow what a training does to its loss before the backward pass
    (fp16 multiplies it, accumulated gradients divide it), and logs their sum as `loss_balance`. Every `interval`
    iterations it writes the share of the items that each expert got (``expert/MODULE/NUMBER``, for
    tools/plot_log.py), and warns of experts that got next to none."""

    priority = 'HIGH'

    def __init__(self, interval: int = 50):
        self.interval = interval

    def before_train(self, runner: Any) -> None:
        model = unwrapped(runner.model)
        named = {name: module for name, module in model.named_modules() if isinstance(module, Experts)}
        self.experts, self.names, self.dead = list(named.values()), list(named), set()
        self.shares = [torch.zeros_like(module.shares) for module in self.experts]

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if self.experts:
            optimizer, balance = runner.optim_wrapper, self.experts[0].balance
            scale = optimizer.scale_loss(torch.ones_like(balance))
            scaler = getattr(optimizer, 'loss_scaler', None)
            set_balance_scale(scaler.scale(scale) if scaler else scale)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self.experts:
            total = sum(module.balance for module in self.experts)
            runner.message_hub.update_scalar('train/loss_balance', total)
            for shares, module in zip(self.shares, self.experts, strict=True):
                shares += module.shares
            if self.every_n_train_iters(runner, self.interval):
                self._write_shares(runner)

    def _write_shares(self, runner: Any) -> None:
        found = {}
        for name, shares in zip(self.names, self.shares, strict=True):
            all_reduce(shares)
            parts = (shares / shares.sum()).tolist()
            found |= {f'expert/{name}/{i}': part for i, part in enumerate(parts)}
            dead = {(name, i) for i, part in enumerate(parts) if part * len(parts) < DEAD} - self.dead
            for _, i in sorted(dead):
                runner.logger.warning(
                    f'Expert {i} of {len(parts)} in {name} is dead: it got {100 * parts[i]:.2g} % of the items in '
                    f'{self.interval} iterations. Its weights are idle; a lower learning rate or a longer warm-up help.'
                )
            self.dead |= dead
            shares.zero_()
        runner.visualizer.add_scalars(dict(found, iter=runner.iter + 1), step=runner.iter + 1)

    def after_train(self, runner: Any) -> None:
        set_balance_scale(1.0)


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
