"""File ``mmcv/_ext.py``, with which mmcv uses the fallbacks of this package in every process.

The first line of the file contains a checksum of the other lines. A file of any version of this package is therefore
recognized by its content, and other files are never replaced or removed.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib import invalidate_caches
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from importlib.util import cache_from_source, find_spec
from pathlib import Path

from ..errors import NotInstalledError, UserError, explain_import

HEADER = 'Written by mlp_dense {version}; SHA-256 of the lines below: {checksum}'
BODY = '''\
"""Operators of mmcv, written in PyTorch. ``mlp-dense operators remove`` deletes this file."""

try:
    from mlp_dense.operators import extension
except ImportError as error:
    if not (error.name or '').startswith('mlp_dense'):
        raise
    problem = f'{__file__} needs mlp_dense, which cannot be imported ({error})'
    raise ModuleNotFoundError(f'{problem}: install mlp_dense, or delete this file.', name='mlp_dense') from error


def __getattr__(name):
    return getattr(extension, name)
'''


@dataclass(frozen=True)
class Status:
    """Operators that mmcv imports in a new process.

    Args:
        kind: ``compiled``; ``installed``, ``stale`` or ``left`` for the file of this package; ``other`` or ``absent``.
        text: description without a full stop.
        remedy: imperative without a full stop, empty if nothing has to be done.
    """

    kind: str
    text: str
    remedy: str = ''

    @property
    def usable(self) -> bool:
        """Whether mmcv has operators."""
        return self.kind in ('compiled', 'installed')


def mmcv_folder() -> Path:
    """Return the folder of mmcv, without importing it. Raises NotInstalledError if mmcv is missing."""
    spec = find_spec('mmcv')
    for folder in map(Path, (spec and spec.submodule_search_locations) or ()):
        if (folder / '__init__.py').is_file() or version_of(folder / '_ext.py'):
            return folder
    raise NotInstalledError(explain_import(ModuleNotFoundError(name='mmcv')))


def status(folder: Path) -> Status:
    """Return which operators mmcv imports from its folder."""
    file = folder / '_ext.py'
    version = version_of(file)
    invalidate_caches()
    spec = PathFinder.find_spec('mmcv._ext', [str(folder)])
    if spec and (spec.origin or '').endswith(tuple(EXTENSION_SUFFIXES)):
        text = f'mmcv uses its compiled operators, {spec.origin}'
        if version is None:
            return Status('compiled', text)
        return Status('compiled', f'{text}, which have priority over {file}', 'Run mlp-dense operators remove')
    names = sorted(path.name for path in folder.iterdir() if path.name.partition('.')[0] == '_ext')
    if others := [name for name in names if version is None or name != file.name]:
        text = f'{folder / others[0]} was not written by mlp_dense and is not compiled for this Python'
        return Status('other', text, 'Move it away, then run mlp-dense operators install')
    if version is None:
        text = f'mmcv in {folder} has no operators, so mmdet fails unless mlp_dense.operators is imported first'
        return Status('absent', text, 'Run mlp-dense operators install')
    if not (folder / '__init__.py').is_file():
        return Status('left', f'{file} is left of an mmcv that was uninstalled', 'Run mlp-dense operators remove')
    if file.read_text(encoding='utf-8').partition('\n')[2] != BODY:
        text = f'{file} was written by mlp_dense {version} and differs from the file of the installed mlp_dense'
        return Status('stale', text, 'Run mlp-dense operators install')
    return Status('installed', f'mmcv uses the operators of mlp_dense in every process, {file} (written by {version})')


def install(folder: Path, version: str) -> str:
    """Write the file into the folder of mmcv; return what was done.

    Raises:
        UserError: mmcv has compiled operators or a module of another program, or the folder cannot be written.
    """
    state, file = status(folder), folder / '_ext.py'
    if state.kind == 'installed':
        return f'{state.text}. Nothing was changed.'
    if state.kind == 'compiled':
        raise UserError(f'{state.text}; to use those of mlp_dense instead, replace mmcv by mmcv-lite first.')
    if state.kind in ('other', 'left'):
        raise UserError(f'{state.text}; {state.remedy[0].lower()}{state.remedy[1:]}.')
    header = HEADER.format(version=version, checksum=_checksum(BODY))
    unfinished = folder / f'.{file.name}.{os.getpid()}'
    with _explained(folder):
        try:
            unfinished.write_text(f'# {header}\n{BODY}', encoding='utf-8')
            unfinished.replace(file)
        finally:
            with suppress(OSError):
                unfinished.unlink()
    return f'Wrote {file}: mmcv now uses the operators of mlp_dense in every process.'


def remove(folder: Path) -> str:
    """Delete the file and its compiled copies from the folder of mmcv; return what was done.

    Raises:
        UserError: the file is that of another program, or the folder cannot be written.
    """
    file = folder / '_ext.py'
    if version_of(file) is None:
        if os.path.lexists(file):
            raise UserError(f'{file} was not written by mlp_dense, so it stays; delete it if nothing needs it.')
        return f'{folder} contains no file of mlp_dense. Nothing was changed.'
    cache = Path(cache_from_source(str(file))).parent
    with _explained(folder):
        for path in (*cache.glob('_ext.*.pyc'), file):
            path.unlink()
    for empty in (cache, folder):  # an empty folder that an uninstalled mmcv left can be imported as a package
        with suppress(OSError):
            empty.rmdir()
    return f'Removed {file}.'


def version_of(file: Path) -> str | None:
    """Return the version of mlp_dense that wrote a file, None if it is missing, changed or of another program."""
    with suppress(OSError, UnicodeDecodeError):
        header, _, body = file.read_text(encoding='utf-8').partition('\n')
        pattern = re.escape(HEADER).replace(r'\{version\}', r'(\S+)').replace(r'\{checksum\}', _checksum(body))
        if match := re.fullmatch(f'# {pattern}', header):
            return match[1]
    return None


def _checksum(body: str) -> str:
    return sha256(body.encode()).hexdigest()


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = 'run the command as the user who installed mmcv, or use a virtual environment'
        raise UserError(f'{folder} cannot be changed ({error.strerror}); {remedy}.') from error
