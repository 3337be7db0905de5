"""Formats of annotations: reading, writing and splitting of data sets.

:func:`read` returns a :class:`DataSet`; :func:`write` and :func:`places_of` accept it.
"""

from .converting import WRITERS, Written, detect, places_of, read, write
from .detecting import FORMATS, NoFormatError
from .records import Annotation, Box, DataSet, Place, Record, counts
from .semantic import IGNORED, label_map
from .splitting import split

__all__ = [
    'FORMATS',
    'IGNORED',
    'WRITERS',
    'Annotation',
    'Box',
    'DataSet',
    'NoFormatError',
    'Place',
    'Record',
    'Written',
    'counts',
    'detect',
    'label_map',
    'places_of',
    'read',
    'split',
    'write',
]
