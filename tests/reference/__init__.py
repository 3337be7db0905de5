"""Independent reference of every backbone family: `reference/FAMILY.py` contains its facts and an implementation.

FAMILY is the name of the family's file in `mlp_dense/backbones/`. If the official modules are available, FAMILY.json
contains fingerprints of them, and `fingerprints` lists their names.
"""

import functools
import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .common import Reference

__all__ = ['Reference', 'fingerprint_of', 'reference_of']


@functools.cache
def reference_of(family: type) -> Reference:
    """Return the reference of a family, an instance of the class of the same name.

    Raises:
        LookupError: The reference is missing. The message names the file to write.
    """
    name = f'{__name__}.{_module_of(family)}'
    if not find_spec(name) or not hasattr(import_module(name), family.__name__):
        raise LookupError(
            f'{family.__name__} has no reference implementation: write class {family.__name__}(Reference) in '
            f'tests/{name.replace(".", "/")}.py (see docs/new_family.md).'
        )
    return getattr(import_module(name), family.__name__)()


def fingerprint_of(family: type, entry: str) -> dict[str, Any]:
    """Return an entry of the family's file of fingerprints: outputs of the official module."""
    return json.loads(Path(__file__).with_name(f'{_module_of(family)}.json').read_text())[entry]


def _module_of(family: type) -> str:
    return family.__module__.rpartition('.')[2]
