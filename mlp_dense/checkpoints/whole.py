"""Files that are whole or not there: what a killed process, a full disk or a lost machine leaves behind can be read."""

import os
import re
import zipfile
from contextlib import suppress
from pathlib import Path

from ..errors import UserError

UNFINISHED = re.compile(r'\..+\.\d+\.unfinished')


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Writes a file under another name, has the disk keep it, reads its size and its zip directory back, and only then
    gives it its name. UserError: it cannot be written; nothing is left behind, and a file of that name stays as it is.
    """
    unfinished = path.with_name(f'.{path.name}.{os.getpid()}.unfinished')
    try:
        with unfinished.open('wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if unfinished.stat().st_size != len(data):
            raise OSError(f'only {unfinished.stat().st_size} of {len(data)} bytes arrived')
        if path.suffix == '.pth' and not zipfile.is_zipfile(unfinished):
            raise OSError('what was written cannot be read back')
        unfinished.replace(path)
        _keep_name(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f'{path} cannot be written ({reason}); what was there before is unchanged.') from error
    finally:
        with suppress(OSError):
            unfinished.unlink()


def _keep_name(folder: Path) -> None:
    """Has the disk keep the names in a folder, where the system can."""
    if os.name == 'posix':
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_unfinished(folder: Path) -> None:
    """Removes what killed processes left of :func:`write_whole` in a folder."""
    for path in folder.iterdir():
        if UNFINISHED.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def damage(path: Path) -> str:
    """Why a checkpoint of PyTorch's zip format is not whole; empty if it is: every checksum in it is compared."""
    if not path.stat().st_size:
        return 'it is empty'
    try:
        with zipfile.ZipFile(path) as file:
            broken = file.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        return f'it is incomplete ({error})'
    return f'the checksum of {broken} in it is wrong' if broken else ''
