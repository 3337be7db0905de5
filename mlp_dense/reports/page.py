"""What a report consists of, and the files that it becomes: a page that opens from disk, numbers and plots."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure

from ..errors import UserError
from .results import FOLDER


@dataclass
class Table:
    """Rows of a value (number, text or None) for each column. A column is ``(name, what it means, decimals)``; None
    decimals: text."""

    title: str
    note: str
    columns: Sequence[tuple[str, str, int | None]]
    rows: Sequence[Sequence[Any]]
    sort: int | None = None  # by this column at first, the highest on top


@dataclass
class Plot:
    """A figure of matplotlib; `name` is that of its file."""

    title: str
    note: str
    name: str
    figure: Figure


@dataclass
class Picture:
    """A drawn image of the gallery. ``tags`` are pairs of a class and a kind, by which it is found; ``objects`` are
    drawn over it: kind, class, box (left, top, width, height in pixels of the file), score, IoU, outline (a path of
    SVG), what it is taken for."""

    file: str  # in the folder of the report
    name: str
    width: int
    height: int
    caption: str
    tags: Sequence[tuple[int, int]] = ()
    objects: Sequence[Sequence[Any]] = ()


@dataclass
class Gallery:
    """Pictures, the worst first, to be filtered by class and kind; ``kinds`` are pairs of a name and a colour."""

    title: str
    note: str
    classes: Sequence[str]
    kinds: Sequence[tuple[str, str]]
    pictures: Sequence[Picture]


@dataclass
class Report:
    title: str
    facts: Mapping[str, str]  # shown at the top
    sections: Sequence[Table | Plot | Gallery]
    numbers: Mapping[str, Any] = field(default_factory=dict)  # for report.json, beside the tables


def check_folder(folder: Path) -> None:
    """UserError: something other than a report is in the folder, which a report would mix with."""
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if strange := sorted(there - {FOLDER, 'index.html', 'data.js', 'report.json', 'plots', 'pictures'}):
        raise UserError(f'{folder} holds other things than a report ({strange[0]}); give a new or empty folder.')


def write_report(report: Report, folder: Path) -> Path:
    """Writes ``index.html``, ``data.js``, ``report.json`` and ``plots/``; returns the page. Pictures are there."""
    folder.mkdir(parents=True, exist_ok=True)
    sections = []
    for section in report.sections:
        if isinstance(section, Plot):
            file = Path('plots', f'{section.name}.png')
            (folder / file).parent.mkdir(exist_ok=True)
            section.figure.savefig(folder / file, dpi=150)
            width, height = (round(100 * inches) for inches in section.figure.get_size_inches())
            content = dict(title=section.title, note=section.note, file=file.as_posix(), width=width, height=height)
        else:
            content = asdict(section)
        sections.append(dict(content, type=type(section).__name__.lower()))
    page = dict(title=report.title, facts=dict(report.facts), sections=sections)
    text = json.dumps(_finite(page), separators=(',', ':'), allow_nan=False)
    (folder / 'data.js').write_text(f'const REPORT = {text};\n', encoding='utf-8')
    tables = {
        section.title: [dict(zip([name for name, *_ in section.columns], row, strict=True)) for row in section.rows]
        for section in report.sections
        if isinstance(section, Table)
    }
    numbers = dict(title=report.title, facts=dict(report.facts), **report.numbers, tables=tables)
    (folder / 'report.json').write_text(
        json.dumps(_finite(numbers), indent=1, allow_nan=False) + '\n', encoding='utf-8'
    )
    html = Environment(loader=PackageLoader('mlp_dense.reports', 'template'), autoescape=True)
    (folder / 'index.html').write_text(html.get_template('index.html').render(title=report.title), encoding='utf-8')
    return folder / 'index.html'


def _finite(value: Any) -> Any:
    """For JSON: null for what is not finite, plain numbers for NumPy's."""
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    if hasattr(value, 'tolist'):
        return _finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
