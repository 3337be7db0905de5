"""Results folder of a test: everything that its report needs, so that no second inference is necessary."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.bands import LoadMultiBandImage
from ..errors import UserError, command
from ..outputs import settle

FOLDER = 'results'  # inside the folder of the report


@dataclass
class Results:
    """A test: the content of ``results/run.json``, stored next to the files with the predictions.

    * detection: ``predictions.bbox.json`` and, with masks, ``predictions.segm.json``, results in COCO's format;
    * segmentation: ``labels/NAME.png`` and ``truth/NAME.png``, a pixel is the index of its class;
    * classification: ``predictions.json``, as ``tools/test.py --out`` writes it.
    """

    name: str
    task: str  # name of a task
    classes: Sequence[str]
    palette: Sequence | None
    metrics: Mapping[str, float | None]
    config: str
    checkpoint: str
    images: str  # folder or file that image names refer to
    annotations: str = ''  # detection: file with the ground truth
    crowds: str = 'ignored'  # detection: setting of the metric
    ignore_index: int = 255  # segmentation: label that is not evaluated
    size: Sequence[int] | None = None  # height and width of the last batch of inputs
    loading: Mapping[str, Any] = field(default_factory=dict)  # arguments of LoadMultiBandImage; empty: 8-bit images
    model: dict[str, float] = field(default_factory=dict)  # cost of the model, by name with unit
    versions: Mapping[str, str] = field(default_factory=dict)
    folder: Path = Path()  # folder of the report; not written

    def file(self, *parts: str) -> Path:
        """Return the path of a file or folder of the results."""
        return self.folder.joinpath(FOLDER, *parts)

    def facts(self, images: int) -> dict[str, str]:
        """Return the facts at the top of a page."""
        metrics = {name: 'undefined' if value is None else f'{value:.3f}' for name, value in self.metrics.items()}
        model = {name: f'{value:.3g}' for name, value in self.model.items()}
        drawn = {'drawn': LoadMultiBandImage(**self.loading).description(0)} if self.loading else {}
        return metrics | {'images': str(images), 'checkpoint': self.checkpoint} | model | drawn

    def write(self) -> None:
        """Write ``results/run.json``."""
        content = {name: value for name, value in vars(self).items() if name != 'folder'}
        self.file().mkdir(parents=True, exist_ok=True)
        self.file('run.json').write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')


def without_undefined(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Return metrics as numbers; None for those that are not finite, or -1, as COCO writes undefined values."""
    values = {name: float(value) for name, value in metrics.items()}
    return {name: value if math.isfinite(value) and value != -1 else None for name, value in values.items()}


def mean_of_classes(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis without NaN, which classes without a value have; NaN if all are NaN."""
    with np.errstate(invalid='ignore'):
        return np.nansum(values, -1) / np.isfinite(values).sum(-1)


def read_results(folder: Path) -> Results:
    """Read the results in the folder of a report. Raises UserError if they are missing or damaged."""
    settle(folder)
    file = folder / FOLDER / 'run.json'
    try:
        return Results(**read_json(file), folder=folder)
    except TypeError as error:
        raise UserError(f'{file} cannot be read ({error}); run the test again with --report.') from error


def read_json(file: Path) -> Any:
    """Read a JSON file of the results or of the ground truth. Raises UserError if that fails."""
    try:
        return json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise UserError(
            f'{file} cannot be read ({error}); restore it, or run {command("test")} with --report.'
        ) from error


@dataclass
class Scores:
    """A test in a comparison: N images, C classes, and a metric from 0 to 1."""

    metric: str
    images: Sequence[str]  # names
    files: Sequence[str]
    errors: np.ndarray  # (N,) number of wrong objects, fraction of wrong pixels, or 1 for a wrong class
    of_classes: Callable[[np.ndarray | None], np.ndarray]  # metrics (C,) if image i counts weights[i] times
