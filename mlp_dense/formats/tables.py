"""Tables of the classes in label maps, with their values or colours."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from .sources import Source, lines_of, read_json

FILES = ('labelmap.txt', '_classes.csv', 'class_dict.csv', 'label_colors.txt', 'classes.txt', 'labels.txt', 'codes.txt')
"""Files of a data set that list its classes, in the order in which they are tried."""
IGNORED_NAMES = ('ignore', 'ignored')  # rows whose pixels are ignored
Colour = tuple[int, int, int]
Table = list[tuple[str, int | Colour]]
"""Pairs of a class and its value or colour (red, green, blue)."""

NUMBER, BETWEEN, NAME = r'\s*(\d+)\s*', r'[\s,:;]+', r'\s*(.*[^\d\s,].*?)\s*'
FORMS = (  # a regular expression of the complete line, the group of the name, and the groups of the numbers
    (BETWEEN.join([NUMBER] * 3 + [NAME]), 4, (1, 2, 3)),
    (BETWEEN.join([NAME] + [NUMBER] * 3), 1, (2, 3, 4)),
    (BETWEEN.join([NUMBER, NAME]), 2, (1,)),
)


def table_of(source: Source) -> tuple[Table | None, object]:
    """Return the table that the user set, else that of a file in the source, else None; and its owner for messages."""
    if isinstance(source.colors, Mapping):
        return checked_table(list(source.colors.items()), 'colors'), 'colors'
    names = {file.name.lower(): file for file in reversed(source.files)}
    file = source.colors or next((names[name] for name in FILES if name in names), None)
    return (read_table(file), file) if file else (None, None)


def read_table(file: Path) -> Table:
    """Return the classes of a file.

    A line has a name and three numbers (red, green, blue), the reverse, a value and a name, or a name only, whose value
    is the number of the line, from 0. CVAT's labelmap.txt and JSON files with ``{name: value or [red, green, blue]}``
    are read as well.
    """
    if file.suffix.lower() == '.json':
        content = read_json(file)
        if not isinstance(content, dict):
            raise UserError(f'{file} has no names of classes; write {{"name": [red, green, blue]}}.')
        return checked_table(list(content.items()), file)
    rows: list[tuple[str, Any]] = []
    for i, text in lines_of(file):
        if text.startswith('#'):
            continue
        if file.name == 'labelmap.txt':
            text = ' '.join(text.rsplit(':', 3)[:2]).strip()
        for form, name, numbers in FORMS:
            if match := re.fullmatch(form, text):
                values = tuple(map(int, match.group(*numbers))) if len(numbers) > 1 else int(match[1])
                rows.append((match[name], values))
                break
        else:
            if file.suffix.lower() != '.csv' or i > 1:  # the first line of a CSV file has titles
                rows.append((text, len(rows)))
    return checked_table(rows, file)


def checked_table(rows: list[tuple[str, Any]], owner: object) -> Table:
    """Return the rows of a table. Raises UserError if a value is invalid or belongs to two classes."""
    table: Table = []
    for name, value in rows:
        key = tuple(value) if isinstance(value, (list, tuple)) else value
        numbers = key if isinstance(key, tuple) else (key,)
        if len(numbers) not in (1, 3) or not all(type(n) is int and 0 <= n < 65536 for n in numbers):
            raise UserError(f'{owner}: the class {name!r} has {value!r}; set a value or red, green and blue.')
        if same := [other for other, used in table if used == key]:
            raise UserError(f'{owner}: the classes {same[0]!r} and {name!r} both have {value!r}; change one.')
        if table and isinstance(table[0][1], tuple) is not isinstance(key, tuple):
            raise UserError(f'{owner} has classes with and without colours; write a colour for each.')
        table.append((str(name), key))
    if not table:
        raise UserError(f'{owner} lists no class; write a name and its colour on each line.')
    return table
