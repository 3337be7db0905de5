"""The folder in which a test leaves what its report needs: no second inference."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from ..errors import UserError
from ..tasks import TASKS

FOLDER = 'results'  # in that of the report
KINDS = ('bbox', 'segm')


@dataclass
class Results:
    """A test: what ``results/run.json`` says, beside the files that hold the predictions.

    * detection: ``predictions.bbox.json`` and, with masks, ``predictions.segm.json``, results in COCO's format;
    * segmentation: ``labels/NAME.png`` and ``truth/NAME.png``, a pixel is the index of its class;
    * classification: ``predictions.json``, as ``tools/test.py --out`` writes it.
    """

    name: str
    task: str  # name of one of TASKS
    classes: Sequence[str]
    palette: Sequence | None
    metrics: Mapping[str, float | None]
    config: str
    checkpoint: str
    images: str  # the folder or file that image names refer to
    annotations: str = ''  # detection: the file with the ground truth
    ignore_index: int = 255  # segmentation: the label that is not measured
    size: Sequence[int] | None = None  # height and width of the last images that the model got
    model: dict[str, float] = field(default_factory=dict)  # what it costs, by name with unit
    versions: Mapping[str, str] = field(default_factory=dict)
    folder: Path = Path()  # of the report; not written

    def file(self, *parts: str) -> Path:
        """A file or folder of the results."""
        return self.folder.joinpath(FOLDER, *parts)

    def facts(self, images: int) -> dict[str, str]:
        """What stands at the top of a page."""
        measured = {
            name: f'{value:.3f}' for name, value in self.metrics.items() if value not in (None, -1)
        }  # COCO's -1
        model = {name: f'{value:.3g}' for name, value in self.model.items()}
        return measured | {'images': str(images), 'checkpoint': self.checkpoint} | model

    def write(self) -> None:
        content = asdict(self)
        del content['folder']
        self.file().mkdir(parents=True, exist_ok=True)
        self.file('run.json').write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')


def read_results(folder: Path) -> Results:
    """What a test left in the folder of its report. UserError: nothing that can be read."""
    file = folder / FOLDER / 'run.json'
    if not file.is_file():
        raise UserError(f'{folder} holds no results ({FOLDER}/run.json); tools/test.py --report {folder} writes them.')
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
        results = Results(**content, folder=folder)
    except (ValueError, TypeError) as error:
        known = ', '.join(each.name for each in fields(Results) if each.name != 'folder')
        raise UserError(f'{file} cannot be read ({error}); it must hold {known}.') from error
    names = [task.name for task in TASKS.values()]
    if results.task not in names:
        raise UserError(f'{file}: task is {results.task!r}; allowed: {", ".join(names)}.')
    return results
