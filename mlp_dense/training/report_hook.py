"""Results of a test for its report (tools/test.py --report)."""

import shutil
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from torch.utils.hooks import RemovableHandle

from ..config.config_file import evaluators, make_folder
from ..datasets.layout import image_folder, leaves
from ..registry import HOOKS
from ..reports.page import check_folder
from ..reports.results import FOLDER, Results
from ..tasks import task_of
from .machine import seconds_now, unwrapped
from .run_info import versions


def leave_results(cfg: Config, folder: Path) -> None:
    """Add metrics and a hook to the config of a test that write the results into a folder."""
    check_folder(folder)
    results = folder / FOLDER
    make_folder(folder)
    shutil.rmtree(results, ignore_errors=True)  # results of an earlier test
    results.mkdir()
    cfg.test_evaluator = task_of(cfg.default_scope).keep_results(evaluators(cfg, 'test'), results)
    cfg.custom_hooks.append(dict(type='mlp_dense.ResultsHook', folder=str(folder)))


@HOOKS.register_module()
class ResultsHook(Hook):
    """Measures the forward passes of a test and writes ``results/run.json``."""

    def __init__(self, folder: str):
        self.folder = Path(folder)
        self.handles: tuple[RemovableHandle, ...] = ()
        self.times: list[float] = []  # milliseconds an image

    def before_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if not self.handles:  # not before: the model may be fused first
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

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles = ()
        if not is_main_process():
            return
        cfg, dataset = runner.cfg, next(leaves(runner.test_dataloader.dataset))
        metrics_of_test = evaluators(cfg, 'test')
        annotations = [metric.ann_file for metric in metrics_of_test if metric.get('outfile_prefix')]
        ignored = [metric.ignore_index for metric in metrics_of_test if 'ignore_index' in metric]
        parameters, tested = list(unwrapped(runner.model).parameters()), cfg.model.get('module', cfg.model)
        speed = {f'ms an image ({parameters[0].device.type if parameters else "cpu"})': median(self.times)}
        size = {} if 'file' in tested else {'million parameters': sum(p.numel() for p in parameters) / 1e6}
        Results(
            name=Path(cfg.filename).stem,
            task=task_of(cfg.default_scope).name,
            classes=list(dataset.metainfo['classes']),
            palette=dataset.metainfo.get('palette'),
            metrics={name: float(value) for name, value in (metrics or {}).items()},
            config=str(cfg.filename),
            checkpoint=str(cfg.load_from or tested.get('file')),
            images=str((image_folder(dataset) or Path()).absolute()),
            annotations=str(Path(annotations[0]).absolute()) if annotations else '',
            ignore_index=ignored[0] if ignored else 255,
            size=self.size,
            model=size | speed,
            versions=versions(),
            folder=self.folder,
        ).write()
