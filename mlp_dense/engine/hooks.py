"""Hooks of the training and the test loop."""

from pathlib import Path
from typing import Any

import mmcv
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from ..backbones.fusion import fuse
from ..registry import HOOKS
from ..reports.drawing import draw_labels
from .tasks import task_of


@HOOKS.register_module()
class FuseHook(Hook):
    """Tests the fused copy of the model (:func:`mlp_dense.fuse`)."""

    def before_test(self, runner: Any) -> None:
        owner, name = (runner.model, 'module') if is_model_wrapper(runner.model) else (runner, 'model')
        setattr(owner, name, fuse(getattr(owner, name)))


@HOOKS.register_module()
class DrawPredictionsHook(Hook):
    """Draws every tested image into a folder, with its ground truth at the left and the predictions at the right (of
    objects those with a score above `score_thr`); small ones are enlarged."""

    def __init__(self, out_dir: str, score_thr: float = 0.5):
        self.out_dir, self.score_thr = Path(out_dir), score_thr

    def after_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        task, meta = task_of(runner.cfg.default_scope), runner.visualizer.dataset_meta
        for sample in outputs or ():
            image = mmcv.imread(sample.img_path, channel_order='rgb')
            labels = task.labels_of(sample, 'gt'), task.labels_of(sample, 'pred', self.score_thr)
            drawn = draw_labels(image, labels, task.draw, meta)
            mmcv.imwrite(drawn[..., ::-1], str(self.out_dir / f'{Path(sample.img_path).stem}.png'))
