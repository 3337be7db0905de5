"""Results of a test for its report (tools/test.py --report)."""

import shutil
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from torch.utils.hooks import RemovableHandle

from ..config.reading import evaluators, make_folder
from ..datasets.layout import image_folder, leaves
from ..registry import HOOKS
from ..reports.page import check_folder
from ..reports.results import FOLDER, Results
from ..tasks import task_of
from .machine import unwrapped
from .run_info import versions


def leave_results(cfg: Config, folder: Path) -> None:
    """Add metrics and a hook to the config of a test that write the results into a folder.

    Raises:
        UserError: The metrics cannot do so, or the folder contains other files.
    """
    check_folder(folder)
    results = folder / FOLDER
    make_folder(folder)
    shutil.rmtree(results, ignore_errors=True)  # of an earlier test
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
        self.images: list[int] = []

    def before_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if not self.handles:  # not before: the model may be fused first
            model = unwrapped(runner.model)
            self.handles = (
                model.register_forward_pre_hook(self._start, with_kwargs=True),
                model.register_forward_hook(self._stop),
            )

    def _start(self, model: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        inputs = kwargs['inputs'] if 'inputs' in kwargs else args[0]
        self.images.append(len(inputs))
        self.size = tuple(inputs.shape[-2:]) if isinstance(inputs, torch.Tensor) else None
        self.times.append(_now())

    def _stop(self, *_: Any) -> None:
        self.times[-1] = 1000 * (_now() - self.times[-1]) / self.images[-1]

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles = ()
        if not is_main_process():
            return
        cfg, dataset = runner.cfg, next(leaves(runner.test_dataloader.dataset))
        task, meta, written = task_of(cfg.default_scope), dataset.metainfo, evaluators(cfg, 'test')
        of_coco = [each.ann_file for each in written if each.get('outfile_prefix')]
        model = unwrapped(runner.model)
        tested = cfg.model.get('module', cfg.model)
        parameters = None if 'file' in tested else sum(parameter.numel() for parameter in model.parameters())
        device = next((parameter.device.type for parameter in model.parameters()), 'cpu')
        Results(
            name=Path(cfg.filename).stem,
            task=task.name,
            classes=list(meta['classes']),
            palette=meta.get('palette'),
            metrics={name: float(value) for name, value in (metrics or {}).items()},
            config=str(cfg.filename),
            checkpoint=str(cfg.load_from or tested.get('file')),
            images=str((image_folder(dataset) or Path()).absolute()),
            annotations=str(Path(of_coco[0]).absolute()) if of_coco else '',
            ignore_index=next((each.ignore_index for each in written if 'ignore_index' in each), 255),
            size=self.size,
            model={
                **({'million parameters': parameters / 1e6} if parameters else {}),
                f'ms an image ({device})': median(self.times),
            },
            versions=versions(),
            folder=self.folder,
        ).write()


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
