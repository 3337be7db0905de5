"""Hooks of the training and the test loop."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from ..backbones.fusion import fuse
from ..errors import UserError
from ..registry import HOOKS
from ..reports.drawing import draw_instances, draw_label_map, enlargement, resize_picture, resize_sample


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops a training whose loss is no longer finite, with a sentence that names the losses at fault.

    Args:
        interval: how often to look, in iterations (each look waits for the GPU).
    """

    def __init__(self, interval: int = 50):
        self.interval = interval

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        if not outputs or not self.every_n_train_iters(runner, self.interval):
            return
        wrong = [name for name, value in outputs.items() if not torch.as_tensor(value).isfinite().all()]
        if wrong:
            raise UserError(
                f'Stopped at iteration {runner.iter + 1}: {", ".join(wrong)} is not finite. Go on from an earlier '
                'checkpoint with a lower learning rate, longer warm-up, gradient clipping, or without --amp.'
            )


@HOOKS.register_module()
class FuseHook(Hook):
    """Tests the fused copy of the model (:func:`mlp_dense.fuse`)."""

    def before_test(self, runner: Any) -> None:
        if is_model_wrapper(runner.model):
            runner.model.module = fuse(runner.model.module)
        else:
            runner.model = fuse(runner.model)


@HOOKS.register_module()
class DrawPredictionsHook(Hook):
    """Draws every tested picture with its ground truth at the left and the predictions at the right.

    Args:
        out_dir: folder for one PNG per picture.
        score_thr: lowest score of a drawn object; detection only.
        min_size: pictures with a side shorter than this many pixels are enlarged, so that labels can be read.
    """

    def __init__(self, out_dir: str, score_thr: float = 0.5, min_size: int = 320):
        self.out_dir = Path(out_dir)
        self.score_thr = score_thr
        self.min_size = min_size

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Sequence | None = None
    ) -> None:
        meta = runner.visualizer.dataset_meta
        names = meta['classes'], meta.get('palette')
        for sample in outputs or ():
            picture = mmcv.imread(sample.img_path, channel_order='rgb')
            height, width = picture.shape[:2]
            factor = enlargement(height, width, self.min_size)
            picture = resize_picture(picture, width * factor, height * factor)
            sample = resize_sample(sample, height, width, height * factor, width * factor)
            if 'pred_instances' in sample:
                sample.pred_instances = sample.pred_instances[sample.pred_instances.scores > self.score_thr]
            drawn = []
            for kind in ('gt', 'pred'):
                if f'{kind}_instances' in sample:
                    drawn.append(draw_instances(picture, sample.get(f'{kind}_instances'), *names))
                elif f'{kind}_sem_seg' in sample:
                    drawn.append(draw_label_map(picture, sample.get(f'{kind}_sem_seg').data[0].cpu().numpy(), *names))
            out_file = self.out_dir / f'{Path(sample.img_path).stem}.png'
            mmcv.imwrite(np.concatenate(drawn, axis=1)[..., ::-1], str(out_file))
