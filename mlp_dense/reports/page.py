"""Sections of a report, and its files: a page that opens from disk, the values as JSON, and plots."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure

from ..errors import UserError
from .results import FOLDER

HOVER = 'Hover over a column to see its meaning.'
IMAGES = 'pictures'  # folder of the drawn images, inside the folder of the report


@dataclass
class Column:
    """A column of a table; its values are text, integers, or floats, which are shown with three decimals."""

    name: str
    values: Sequence[Any] | np.ndarray
    meaning: str = ''

    @property
    def decimals(self) -> int | None:
        """Number of decimals, None for text."""
        return {'f': 3, 'i': 0}.get(np.asarray(self.values).dtype.kind)


@dataclass
class Table:
    """A table of columns of one length."""

    title: str
    note: str
    columns: Sequence[Column]
    sort: int | None = None  # column by which the rows are sorted first, in descending order


@dataclass
class Plot:
    """A figure of matplotlib; `name` is the name of its file."""

    title: str
    note: str
    name: str
    figure: Figure


@dataclass
class DrawnObject:
    """An object that the page draws over an image."""

    outcome: str  # key of Gallery.outcomes
    label: int
    box: Sequence[float]  # left, top, width and height in pixels of the source, or of the drawn file
    outline: Any = ''  # mask of pycocotools, or path of SVG in the drawn file
    score: float | None = None  # None for ground truth
    overlap: float | None = None  # IoU
    true_label: int | None = None  # of a detection with the wrong class


@dataclass
class GalleryImage:
    """An image of a gallery; `tags` are pairs of a class and an outcome, by which the gallery is filtered."""

    source: str  # file, or position in an archive (``FILE.npz/000001``)
    name: str
    caption: str
    tags: Sequence[tuple[int, str]] = ()
    objects: Sequence[DrawnObject] = ()
    file: str = ''  # drawn file, relative to the folder of the report
    width: int = 0
    height: int = 0


@dataclass
class Gallery:
    """Images, which can be filtered by class and outcome."""

    title: str
    note: str
    classes: Sequence[str]
    outcomes: Mapping[str, str]  # colours by name
    images: Sequence[GalleryImage]


@dataclass
class Report:
    """A page, and the values that ``report.json`` contains in addition to the tables."""

    title: str
    facts: Mapping[str, str]  # at the top of the page
    sections: Sequence[Table | Plot | Gallery]
    values: Mapping[str, Any] = field(default_factory=dict)


def check_folder(folder: Path) -> None:
    """Check that a folder is new or contains a report only. Raises UserError if it contains other files."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if others := sorted(names - {FOLDER, 'index.html', 'data.js', 'report.json', 'plots', IMAGES}):
        raise UserError(f'{folder} contains files that are not part of a report ({others[0]}); choose an empty folder.')


def write_report(report: Report, folder: Path) -> Path:
    """Write ``index.html``, ``data.js``, ``report.json`` and ``plots/``; return the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    head = dict(title=report.title, facts=report.facts)
    sections, tables = [], {}
    for section in report.sections:
        content = dict(vars(section), type=type(section).__name__.lower())
        if isinstance(section, Plot):
            file = Path('plots', f'{section.name}.png')
            (folder / file).parent.mkdir(exist_ok=True)
            figure = content.pop('figure')
            figure.savefig(folder / file, dpi=150)
            width, height = (100 * figure.get_size_inches()).round().astype(int)
            content.update(file=file.as_posix(), width=width, height=height)
        elif isinstance(section, Table):
            rows = list(zip(*(column.values for column in section.columns), strict=True))
            columns = [dict(name=c.name, meaning=c.meaning, decimals=c.decimals) for c in section.columns]
            content.update(columns=columns, rows=rows)
            tables[section.title] = [
                {c.name: value for c, value in zip(section.columns, row, strict=True)} for row in rows
            ]
        sections.append(content)
    page = json.dumps(_finite(dict(head, sections=sections)), separators=(',', ':'), allow_nan=False)
    (folder / 'data.js').write_text(f'const REPORT = {page};\n', encoding='utf-8')
    values = json.dumps(_finite(dict(head, **report.values, tables=tables)), indent=1, allow_nan=False)
    (folder / 'report.json').write_text(f'{values}\n', encoding='utf-8')
    html = Environment(loader=PackageLoader('mlp_dense.reports', 'template'), autoescape=True)
    (folder / 'index.html').write_text(html.get_template('index.html').render(title=report.title), encoding='utf-8')
    return folder / 'index.html'


def _finite(value: Any) -> Any:
    """Convert dataclasses and NumPy's values for JSON, and values that are not finite to None."""
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if hasattr(value, 'tolist'):
        return _finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
