"""Sections of a report, and its files: a page that opens from disk, the values as JSON, plots and images."""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field, is_dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure
from pycocotools import mask as masks
from rich.progress import track

from ..datasets import Archive
from ..datasets.bands import LoadMultiBandImage
from ..datasets.image_files import read_file, write_image
from ..errors import UnreadableError

HOVER = 'Hover over a column to see its meaning.'
IMAGES = 'pictures'  # folder of the drawn images, inside the folder of the report
LONGEST = 640  # maximum length of the longer side of an image, in pixels
QUALITY = 85  # of JPEG

_open = lru_cache(maxsize=1)(Archive)  # an archive contains many images


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


def choose(errors: Sequence[float] | np.ndarray, classes: Sequence[set[int]], limit: int) -> list[int]:
    """Choose at most `limit` images, sorted by their number of errors.

    The image with most errors of each class comes first, then the second of each class, then images without classes.
    """
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    seen: Counter[int] = Counter()
    ranks = {}
    for i in order:
        ranks[i] = min((seen[label] for label in classes[i]), default=len(errors))
        seen.update(classes[i])
    chosen = sorted(order, key=ranks.__getitem__)[:limit]
    return sorted(chosen, key=lambda i: -errors[i])


def draw_all(
    gallery: Sequence[GalleryImage],
    folder: Path,
    pool: Executor,
    loading: Mapping[str, Any],
    draw: Callable | None = None,
) -> list[GalleryImage]:
    """Draw images into the folder of a report with ``draw(file, image)``, by default :func:`draw_scaled`.

    `loading` is that of the results. Unreadable images are skipped.
    """
    files = [folder / IMAGES / f'{number:05}.jpg' for number in range(len(gallery))]
    draw = draw or partial(draw_scaled, loading=loading)
    drawn = track(pool.map(draw, files, gallery, chunksize=8), 'drawing', len(gallery))
    return [image for image in drawn if image]


def draw_scaled(target: Path, image: GalleryImage, loading: Mapping[str, Any]) -> GalleryImage | None:
    """Write a scaled-down image; return None if it cannot be read."""
    if (pixels := read(image.source, loading)) is None:
        return None
    scale = min(1.0, LONGEST / max(pixels.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    for item in image.objects:
        item.box = [round(value * scale, 1) for value in item.box]
        item.outline = item.outline and outline(item.outline, height, width)
    return written(target, pixels, image)


def written(target: Path, pixels: np.ndarray, image: GalleryImage) -> GalleryImage:
    """Write a BGR image (H, W, 3) as JPEG, and return its record."""
    write_image(target, pixels, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))
    height, width = pixels.shape[:2]
    return replace(image, file=f'{IMAGES}/{target.name}', width=width, height=height)


def read(source: str, loading: Mapping[str, Any]) -> np.ndarray | None:
    """Read a BGR image (H, W, 3) from a file or an archive (``FILE.npz/000001``); return None if that fails."""
    path = Path(source)
    if loading:
        loader = LoadMultiBandImage(**loading)
        with suppress(UnreadableError):
            return np.ascontiguousarray(loader.rgb(loader.read(path))[..., ::-1])
        return None
    if path.parent.suffix == '.npz':
        content = np.frombuffer(_open(str(path.parent)).bytes_of(int(path.name)), np.uint8)
        return cv2.imdecode(content, cv2.IMREAD_COLOR)
    return read_file(path, cv2.IMREAD_COLOR)


def outline(mask: Any, height: int, width: int) -> str:
    """Return a mask of pycocotools as a path of SVG in an image of this size."""
    inside = cv2.resize(masks.decode(mask), (width, height), interpolation=cv2.INTER_NEAREST)
    contours = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    simplified = [cv2.approxPolyDP(contour, 0.8, closed=True)[:, 0].tolist() for contour in contours]
    return ''.join('M' + 'L'.join(f'{x} {y}' for x, y in points) + 'Z' for points in simplified if len(points) > 2)


def write_report(report: Report, folder: Path) -> None:
    """Write ``index.html``, ``data.js``, ``report.json`` and ``plots/`` into a folder."""
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
        elif isinstance(section, Gallery):
            content['images'] = [replace(image, source='') for image in section.images]  # no paths of this machine
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
